//! The task manager: any number of workers that run workflows one durable step at a time, and the
//! periodic work that keeps what providers hold and what the store says the same.

mod commit;
mod lease;
pub mod periodic;
mod runtime;
mod steady;

pub use runtime::{RunError, Worker};

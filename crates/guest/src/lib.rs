//! `coffer-guest`: what runs beside the engine in an instance.
//!
//! [`init`] is the sandbox's first process: it owns the engine and is never upgraded. [`agent`]
//! is its child under another user: it listens for the control side, keeps the engine as the spec
//! says and reports status. Nothing here dials out. [`embed`] is a real agent over an engine that
//! exists in memory only, for tests of other crates.

pub mod agent;
pub mod boot;
mod checksum;
mod clock;
pub mod embed;
pub mod error;
pub mod init;
pub mod limits;
mod log;
mod task;

pub use error::{GuestError, Result};

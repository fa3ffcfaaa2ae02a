//! Periodic work: one file each, every run answers a status for operators.

mod adopt;
pub mod certificates;
pub mod history;
pub mod reconcile;
pub mod restored;
pub mod tokens;

//! Periodic work: one file each, every run answers a status for operators.

pub mod certificates;
pub mod history;
pub mod reconcile;
pub mod tokens;

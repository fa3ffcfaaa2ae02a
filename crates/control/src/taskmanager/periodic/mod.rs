//! Periodic work: one file each, every run answers a status for operators.

pub mod certificates;
pub mod reconcile;
pub mod tokens;

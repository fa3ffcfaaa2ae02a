//! Simulation of the control plane: virtual time, seeded randomness, in-memory guests, injected
//! faults, and a world that runs workflows to their end and checks what is left.
//!
//! The store in it is the real one on SQLite, and the workflows, the runtime and the reconciler
//! are the shipped code. A seed and a commit reproduce a run. Never shipped.

pub mod chaos;
mod checks;
pub mod counts;
pub mod guests;
pub mod harness;
pub mod mutants;
mod oracle;
pub mod rows;
pub mod scenario;
pub mod seeds;
pub mod time;
pub mod world;

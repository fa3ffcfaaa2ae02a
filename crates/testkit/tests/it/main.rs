//! Workflows under simulated faults: every step under every fault, then random schedules by seed.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic on purpose")]

mod agents;
mod certificates;
mod clock;
mod conductor;
mod exhaustive;
mod fencing;
mod history;
mod leases;
mod mutants;
mod offers;
mod parallel;
mod reconcile;
mod restored;
mod seeds;
mod stuck;

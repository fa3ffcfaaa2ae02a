//! Workflows under simulated faults: every step under every fault, then random schedules by seed.

mod exhaustive;
mod scenario;
mod seeds;

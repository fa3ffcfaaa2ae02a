//! The API through its router, over a real SQLite store: what clients send, what they read.

#![expect(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "helpers of tests panic on purpose, and their futures are few"
)]

mod bad_input;
mod coverage;
mod expected;
mod explain;
mod faults;
mod identity;
mod instances;
mod inventory;
mod operator;
mod pages;
mod world;

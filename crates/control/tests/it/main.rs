//! The API through its router, over a real SQLite store: what clients send, what they read.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests panic on purpose, and a test tells its story in one piece"
)]

mod bad_input;
mod coverage;
mod datastores;
mod expected;
mod explain;
mod faults;
mod identity;
mod instances;
mod interrupted;
mod inventory;
mod negotiation;
mod nothing_changed;
mod operator;
mod pages;
mod relays;
mod rows;
mod unknown_fields;
mod world;

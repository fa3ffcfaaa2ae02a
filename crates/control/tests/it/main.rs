//! The API through its router, over a real SQLite store: what clients send, what they read.

mod bad_input;
mod coverage;
mod explain;
mod expected;
mod faults;
mod identity;
mod instances;
mod inventory;
mod operator;
mod pages;
mod world;

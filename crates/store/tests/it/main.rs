//! The store's tests: the conformance suite on SQLite and on PostgreSQL, and what only concerns
//! one of them. PostgreSQL is a throw-away server that the tests start themselves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::too_many_lines,
    reason = "a case tells one story from top to bottom"
)]

#[path = "../../src/conformance.rs"]
mod conformance;
mod fixture;
mod migrations;
mod postgres;
mod seam;

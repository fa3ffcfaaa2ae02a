//! Tests of the guest with real sockets, real sandboxes and a real PostgreSQL.
//!
//! Those of the engine and the sandbox need root and PostgreSQL: an engine root with version 17 at
//! `/var/cache/coffer/roots`, or else the host's own version 15.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever its helpers stand"
)]

mod engine;
mod protocol;
mod sandbox;
mod support;

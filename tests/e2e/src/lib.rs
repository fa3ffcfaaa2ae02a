//! Drives a real Coffer with real clients, and looks at what is left on the host.
//!
//! Each test has a Coffer of its own: a state directory, a free port, a tag on everything it makes
//! on the host. Needs root, the engine roots, and the clients in `/var/cache/coffer/venv`.

pub mod coffer;
pub mod engine;
pub mod ground;
pub mod host;
pub mod keyvalue;
pub mod lines;
pub mod run;
pub mod sql;
pub mod writer;

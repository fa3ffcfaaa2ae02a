//! The domain of Coffer: ids, names, units, objects and the pure rules between them.
//!
//! Nothing here does I/O, waits, or knows a clock: time and randomness are arguments. Only ids,
//! names and units derive serde, so that no object is stored or sent by accident.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod actor;
pub mod datastore;
pub mod error;
pub mod event;
pub mod flavor;
pub mod id;
pub mod instance;
pub mod name;
pub mod network;
pub mod quota;
pub mod replication;
pub mod secret;
pub mod server;
pub mod task;
pub mod tenant;
pub mod time;
pub mod tracker;
pub mod units;

pub use error::{Error, Result};

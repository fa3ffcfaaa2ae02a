//! Knowledge of database engines: the pure half that the control side uses (parameters,
//! validation, rendering, capabilities) and the working half that runs in the guest.

pub mod capability;
#[cfg(feature = "guest")]
pub mod conformance;
pub mod engine;
pub mod error;
pub mod keyvalue;
pub mod mariadb;
pub mod matrix;
pub mod mysql;
mod mysql_family;
pub mod percona;
pub mod postgresql;
pub mod pxc;
pub mod redis;
pub mod registry;
#[cfg(feature = "guest")]
pub mod runtime;
#[cfg(feature = "guest")]
pub mod tool;
pub mod valkey;

pub use engine::Engine;
pub use error::{EngineError, Result};
pub use registry::{engine, registry};

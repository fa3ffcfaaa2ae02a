//! Everything Coffer remembers, behind one type: `Store`.
//!
//! Owns the tables, the SQL and the seam between SQLite and PostgreSQL. Rows never leave this
//! crate: every function takes and gives domain types. Time and ids are arguments, never made
//! here. Nothing here calls a provider or a guest, and no transaction outlives one call.

pub mod audit;
pub mod datastore;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod flavor;
pub mod instance;
pub mod inventory;
pub mod link;
pub mod lock;
mod migrate;
pub mod network;
pub mod quota;
pub mod restored;
mod retention;
pub mod root;
mod row;
pub mod secret;
pub mod server;
pub mod set;
pub mod setting;
pub mod signal;
pub mod singleton;
mod sql;
pub mod status;
mod store;
pub mod task;
pub mod tenant;
pub mod token;
pub mod tracker;
pub mod user;
pub mod volume;
pub mod volume_type;
pub mod wake;
mod write;
pub mod zone;

pub use error::{Result, StoreError};
pub use migrate::Migration;
pub use sql::direct::Rewrite;
pub use sql::file;
pub use store::{Durability, Store, StoreOptions, StoreUrl};
pub use wake::Wakeups;
pub use write::Write;

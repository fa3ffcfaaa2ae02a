//! The built-in identity: passwords, tokens, logins, and the catalog of services.
//!
//! Stored are argon2 hashes of passwords and SHA-256 hashes of tokens, never either itself. One
//! domain, `default`; roles `admin`, `member`, `reader` and whatever the operator adds.

pub mod catalog;
pub mod login;
pub mod password;
mod throttle;
pub mod token;

pub use token::{Session, SessionTenant};

/// Id of the only domain.
pub const DOMAIN_ID: &str = "default";
/// Name of the only domain.
pub const DOMAIN_NAME: &str = "Default";

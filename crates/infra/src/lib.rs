//! Where instances run: the provider trait, its implementations, and the ways into a guest.

pub mod conformance;
pub mod error;
pub mod fake;
pub mod image;
pub mod link;
pub mod local;
pub mod provider;

pub use error::{ProviderError, Result};
pub use provider::Provider;

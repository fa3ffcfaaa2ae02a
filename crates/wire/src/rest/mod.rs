//! The REST API: Trove's version 1.0 with Coffer's own routes, and the identity beside it.

pub mod identity;
pub mod lenient;
pub mod v1;

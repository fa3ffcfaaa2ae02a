//! The REST API: routes, what every request passes, refusals on the wire.
//!
//! Handlers are thin: they read wire types, call a use case in `app`, and show what comes of it by
//! a view. Nothing here calls a provider or a guest.

mod error;
mod extract;
mod guard;
mod links;
mod missing;
mod negotiate;
mod openapi;
pub mod rate;
mod resources;
mod respond;
mod router;
pub mod rules;
mod strict;
mod views;

pub use error::{fault, identity_error};
pub use guard::ClientAddress;
pub use openapi::openapi_json;
pub use router::router;

//! The application: API, use cases, workflows, task manager, conductor and tracker.
//!
//! Control plane only: no byte of a tenant's queries passes through it but in relays and movers.

pub mod api;
pub mod app;
pub mod auth;
pub mod authority;
mod card;
pub mod clock;
pub mod conductor;
pub mod config;
pub mod error;
pub mod guest;
pub mod limits;
pub mod passphrase;
pub mod places;
pub mod rotation;
pub mod secrets;
pub mod services;
pub mod supervise;
pub mod taskmanager;
pub mod tls;
pub mod tracker;
pub mod vault;
pub mod workflow;

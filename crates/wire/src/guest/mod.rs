//! The guest agent protocol.

pub mod v1;

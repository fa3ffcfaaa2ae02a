//! What crosses a socket: shapes only, serde and schema, no rules.

pub mod fault;
pub mod guest;
pub mod relay;
pub mod rest;

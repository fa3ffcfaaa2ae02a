//! Version 1.0 of the REST API: one file per resource.

pub mod action;
pub mod admin;
pub mod common;
pub mod connection;
pub mod database;
pub mod datastore;
pub mod event;
pub mod explain;
pub mod flavor;
pub mod instance;
pub mod limits;
pub mod network;
pub mod quota;
pub mod root;
pub mod tracker;
pub mod user;
pub mod version;

//! Handlers, one file per resource, each with its routes.

pub(super) mod accounts;
pub(super) mod actions;
pub(super) mod audit;
pub(super) mod connect;
pub(super) mod databases;
pub(super) mod datastores;
pub(super) mod explain;
pub(super) mod flavors;
pub(super) mod grants;
pub(super) mod identity;
pub(super) mod instances;
pub(super) mod limits;
pub(super) mod management;
pub(super) mod networks;
pub(super) mod projects;
pub(super) mod public;
pub(super) mod quotas;
pub(super) mod roles;
pub(super) mod root;
pub(super) mod sizes;
pub(super) mod trackers;
pub(super) mod users;
pub(super) mod zones;

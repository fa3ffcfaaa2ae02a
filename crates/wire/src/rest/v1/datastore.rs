//! Datastores and their versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::v1::common::Link;

/// Every datastore.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatastoreList {
    /// The datastores.
    pub datastores: Vec<Datastore>,
}

/// One datastore.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatastoreEnvelope {
    /// The datastore.
    pub datastore: Datastore,
}

/// An engine offered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Datastore {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub links: Vec<Link>,
    /// Its versions.
    pub versions: Vec<Version>,
    /// Version used when a request names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_version: Option<String>,
}

/// Versions of a datastore.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// The versions.
    pub versions: Vec<Version>,
}

/// One version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionEnvelope {
    /// The version.
    pub version: Version,
}

/// A version of an engine offered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The engine's version number.
    pub version: String,
    /// Where it is.
    pub links: Vec<Link>,
    /// Its datastore, by id; where one version is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Whether new instances may use it; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Recipe its engine root is built from; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Always empty: tags are how Trove finds images; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tags: Option<Vec<String>>,
    /// Always empty: the root holds the packages; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<String>>,
    /// Always null: the guest takes no extension from a registry; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub registry_ext: Option<Option<String>>,
    /// Always null: the engine knows how it replicates; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub repl_strategy: Option<Option<String>>,
    /// What can be done with it today; where one version is shown. Trove has no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

/// What can be done with a version today.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// How far each operation goes.
    pub operations: Vec<Capability>,
    /// Whether databases are made and dropped by name.
    pub databases: bool,
    /// Whether users are made, changed and dropped.
    pub users: bool,
    /// Whether users have a host part.
    pub user_hosts: bool,
    /// Whether a user is granted databases.
    pub grants: bool,
    /// Whether a superuser can be enabled.
    pub root: bool,
    /// The superuser's name; null where there is none.
    pub root_user: Option<String>,
    /// Whether clients are let in over TLS only.
    pub tls: bool,
    /// Whether an instance can be started.
    pub start: bool,
    /// Whether an instance can be stopped.
    pub stop: bool,
    /// Whether an instance can be restarted.
    pub restart: bool,
    /// Port that clients are answered on.
    pub port: u16,
}

/// How far one operation goes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Capability {
    /// `provision`, `resize`, `schema`, `user`, `backup`, `configuration` or `cluster`.
    pub operation: String,
    /// `yes`, `partial`, `unverified` (neither the tests nor a soak has met it) or `not-yet`.
    pub support: String,
    /// Why no further; not there beside `yes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

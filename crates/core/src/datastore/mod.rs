//! Datastores and their versions: what is offered.

use crate::id::{DatastoreId, DatastoreVersionId};
use crate::name::Name;
use crate::time::Timestamp;

/// An engine offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    /// Its id.
    pub id: DatastoreId,
    /// Its name, unique (`postgresql`).
    pub name: Name,
    /// Version used when a request names none.
    pub default_version_id: Option<DatastoreVersionId>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A version of an engine offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatastoreVersion {
    /// Its id.
    pub id: DatastoreVersionId,
    /// Datastore it is a version of.
    pub datastore_id: DatastoreId,
    /// Its name, unique in the datastore (`17`).
    pub name: Name,
    /// The engine's version number (`17.6`).
    pub number: String,
    /// Engine that runs it: an entry of the engine registry (`postgresql`).
    pub manager: String,
    /// Whether new instances may use it.
    pub is_active: bool,
    /// Recipe its engine root is built from (`postgresql-17`).
    pub image: String,
    /// Checksum of the engine root in use; none until one was built.
    pub root: Option<String>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// An engine root that was built: a read-only file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRoot {
    /// SHA-256 of its manifest, hex; its name in the pool.
    pub checksum: String,
    /// Recipe it was built from.
    pub image: String,
    /// What it contains, as JSON text: packages with versions, and what the engine says of itself.
    pub manifest: String,
    /// When it was built.
    pub built_at: Timestamp,
}

//! The pure half of an engine: used by the API to validate and by workflows to render and plan.
//!
//! Everything here is synchronous, does no I/O and may be called any number of times. A fix to a
//! rendered configuration needs no new guest, because the guest applies bytes it is given.

use std::fmt::Debug;

use coffer_core::units::VolumeSize;

use crate::error::{EngineError, Result};

/// A file that the engine reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Name inside the engine's configuration directory; no `/`.
    pub name: &'static str,
    /// Its content.
    pub content: String,
}

/// What a configuration is rendered for.
#[derive(Debug, Clone)]
pub struct RenderContext {
    /// Version of the engine (`17`).
    pub version: String,
    /// Memory of the flavor; unit: MiB.
    pub memory_mib: u32,
    /// CPUs of the flavor.
    pub vcpus: u32,
    /// Size of the data volume.
    pub volume: VolumeSize,
    /// Addresses to listen on, beside loopback.
    pub listen: Vec<std::net::IpAddr>,
    /// Where the data volume is mounted.
    pub data_dir: String,
}

/// An operation that an engine has or says plainly that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Create, restart, stop, delete.
    Provision,
    /// Change flavor and volume.
    Resize,
    /// Databases inside the engine.
    Schema,
    /// Users, grants, root.
    User,
    /// Backups.
    Backup,
    /// Configuration groups.
    Configuration,
    /// Clusters.
    Cluster,
}

impl Operation {
    /// Every operation, in the order of the support matrix.
    pub const ALL: &'static [Self] = &[
        Self::Provision,
        Self::Resize,
        Self::Schema,
        Self::User,
        Self::Backup,
        Self::Configuration,
        Self::Cluster,
    ];

    /// Its word in the matrix.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Resize => "resize",
            Self::Schema => "schema",
            Self::User => "user",
            Self::Backup => "backup",
            Self::Configuration => "configuration",
            Self::Cluster => "cluster",
        }
    }
}

/// How far an operation is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It works and is tested with the real engine.
    Yes,
    /// It will come; the API answers 501 with this reason.
    NotYet(&'static str),
    /// The engine has no such thing; the API answers 501 with this reason.
    Never(&'static str),
}

/// Our code for a datastore, pure half.
pub trait Engine: Send + Sync + Debug {
    /// Its name: Trove's `datastore_manager` and our registry's key.
    fn name(&self) -> &'static str;

    /// Versions it knows, newest first.
    fn versions(&self) -> &'static [&'static str];

    /// Those of them whose real server neither a run of the tests nor a soak (`docs/soak.md`) has
    /// met: shown as `unverified`.
    fn unverified_versions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the project has recipes of its versions' roots. Without, no test has met a real
    /// server of it, and versions are offered where an operator has a recipe of his own.
    fn has_recipes(&self) -> bool {
        true
    }

    /// Standard port.
    fn port(&self) -> u16;

    /// The superuser that `root` enables.
    fn root_user(&self) -> &'static str;

    /// Whether users have a host part.
    fn has_user_hosts(&self) -> bool;

    /// How far it supports an operation.
    fn support(&self, operation: Operation) -> Support;

    /// Whether a database of this name, character set and collation may be created.
    fn check_database(
        &self,
        name: &str,
        character_set: Option<&str>,
        collate: Option<&str>,
    ) -> Result<()>;

    /// Whether a user of this name and host may be created.
    fn check_user(&self, name: &str, host: Option<&str>) -> Result<()>;

    /// Whether the password can be set.
    fn check_password(&self, password: &str) -> Result<()> {
        if password.is_empty() || password.contains('\0') || password.len() > 512 {
            return Err(EngineError::Invalid {
                field: "password",
                value: "***".to_owned(),
                rule: "must have 1 to 512 bytes and no NUL".to_owned(),
            });
        }
        Ok(())
    }

    /// Databases and users that belong to the engine or to Coffer: hidden, and refused.
    fn is_reserved_database(&self, name: &str) -> bool;

    /// See [`Engine::is_reserved_database`].
    fn is_reserved_user(&self, name: &str) -> bool;

    /// The configuration for these sizes.
    fn render(&self, context: &RenderContext) -> Vec<ConfigFile>;

    /// Its working half, which only the guest has.
    #[cfg(feature = "guest")]
    fn runtime(&self) -> &'static dyn crate::runtime::EngineRuntime;
}

//! The working half of an engine: compiled only into the guest.
//!
//! The agent drives it and runs as another user than the engine: whatever has to happen under
//! the engine's user goes through [`EngineHost`], which asks the sandbox's init.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{EngineError, Result};

/// A program to run under the engine's user, inside the read-only root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Absolute path inside the root.
    pub path: PathBuf,
    /// Arguments after the program's name; never a secret.
    pub args: Vec<String>,
    /// Environment, complete; never a secret.
    pub env: Vec<(String, String)>,
    /// Bytes for standard input; secrets go here.
    pub stdin: Vec<u8>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramOutput {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Last 64 KiB of what it wrote to standard output and error.
    pub output: String,
}

/// The engine's private key, in the TLS directory.
pub const TLS_KEY: &str = "engine.key";
/// The engine's certificate, leaf first.
pub const TLS_CERT: &str = "engine.crt";
/// The certificate of the project's CA.
pub const TLS_CA: &str = "ca.crt";

/// Directories of the guest that the engine's files live in.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Root of the data volume; the engine's own directory is `data_dir/engine`, owned by the
    /// engine's user.
    pub data_dir: PathBuf,
    /// Configuration: written by the agent, read by the engine (`data_dir/config`).
    pub config_dir: PathBuf,
    /// TLS material; the key is readable by the engine's user only (`data_dir/tls`). Names in it:
    /// [`TLS_KEY`], [`TLS_CERT`], [`TLS_CA`].
    pub tls_dir: PathBuf,
    /// Sockets and other run-time files, writable by the engine (`/run/engine`).
    pub run_dir: PathBuf,
    /// Logs, writable by the engine (`data_dir/log`).
    pub log_dir: PathBuf,
}

/// What the sandbox offers to an engine's runtime.
#[async_trait]
pub trait EngineHost: Send + Sync + Debug {
    /// Where things are.
    fn layout(&self) -> &Layout;

    /// Version of the engine, as the boot data name it.
    fn version(&self) -> &str;

    /// Runs a program under the engine's user to its end; dropped before that, it is killed.
    async fn run(&self, program: Program) -> Result<ProgramOutput>;

    /// The executable whose subcommand `engine-tool` does [`crate::tool`]'s work under the
    /// engine's user.
    fn tool(&self) -> PathBuf {
        PathBuf::from("/usr/lib/coffer/coffer-guest")
    }
}

/// Where a client inside the guest reaches the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port on loopback.
    Loopback(u16),
}

/// Data files held consistent on disk; dropped without a release, the hold ends with its
/// connection to the engine.
#[async_trait]
pub trait Hold: Send + Debug {
    /// Facts to keep with whatever is taken while it is held (positions, identifiers).
    fn facts(&self) -> BTreeMap<String, String>;

    /// Ends the hold.
    async fn release(self: Box<Self>) -> Result<()>;
}

/// How the engine is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPlan {
    /// Signal for a clean stop.
    pub signal: i32,
    /// How long it may take before SIGKILL; unit: milliseconds.
    pub grace_ms: u64,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Version the engine says it has.
    pub version: String,
    /// Replication position, in the engine's own notation.
    pub position: Option<String>,
    /// A number that changes whenever databases, users or grants do.
    pub inventory_mark: String,
}

/// A database as it is.
pub type DatabaseInfo = (String, Option<String>, Option<String>);

/// What an engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Databases: name, character set, collation; in order of name.
    pub databases: Vec<DatabaseInfo>,
    /// Users: name, host, databases granted; in order of name and host.
    pub users: Vec<(String, String, Vec<String>)>,
    /// Whether the superuser may log in.
    pub is_root_enabled: bool,
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// Its host part, for engines that have one.
    pub host: Option<String>,
    /// Its password.
    pub password: coffer_core::secret::Secret,
    /// Databases it is granted.
    pub databases: Vec<String>,
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone)]
pub struct UserChange {
    /// The user.
    pub name: String,
    /// Its host part.
    pub host: Option<String>,
    /// New name.
    pub new_name: Option<String>,
    /// New host part.
    pub new_host: Option<String>,
    /// New password.
    pub new_password: Option<coffer_core::secret::Secret>,
}

/// Our code for a datastore, working half. Every method is idempotent.
#[async_trait]
pub trait EngineRuntime: Send + Sync + Debug {
    /// Makes an initialised data directory: what a template holds. Runs once per root, in a
    /// sandbox of its own; what it makes is cloned.
    async fn bootstrap(&self, host: &dyn EngineHost) -> Result<()>;

    /// Makes a clone unlike its template and every other clone: identifiers, internal passwords.
    /// The engine is stopped. `identity` is a UUID; the same identity again changes nothing.
    async fn personalise(&self, host: &dyn EngineHost, identity: &str) -> Result<()>;

    /// One operation on the engine's files, called in the executable's subcommand `engine-tool`
    /// under the engine's user ([`crate::tool`]); `None` for words that it does not know.
    fn tool(&self, _words: &[&str]) -> Option<io::Result<String>> {
        None
    }

    /// The files by which the engine keeps a second process away from its data. One that is empty
    /// is left by an engine that was killed between making it and writing it, or by a host that
    /// lost its power; it would be refused as somebody else's at every start.
    fn lock_files(&self, _host: &dyn EngineHost) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Words for `engine-tool` ([`Self::tool`]) that mend the engine's files after it ended by
    /// itself, before it is started again; `None` if there is nothing to mend.
    fn mend(&self, _host: &dyn EngineHost) -> Option<Vec<String>> {
        None
    }

    /// The program that is the engine.
    fn launch(&self, host: &dyn EngineHost) -> Program;

    /// How it is stopped cleanly.
    fn stop_plan(&self) -> StopPlan;

    /// Whether the log may be renamed by whoever keeps the logs within their bound, because the
    /// engine opens it anew for each line or in [`Self::keep_house`]; an engine of which neither
    /// is true has to begin new files itself.
    fn reopens_logs(&self) -> bool {
        false
    }

    /// What an engine that answers has to be told now and then so that what it keeps beside data
    /// stays within its bounds; after its logs were looked at.
    async fn keep_house(&self, _host: &dyn EngineHost) -> Result<()> {
        Ok(())
    }

    /// A real commit, answered; bounded by the caller.
    async fn probe(&self, host: &dyn EngineHost) -> Result<ProbeReport>;

    /// Makes the engine read its configuration again without a restart, where it can.
    async fn reload(&self, host: &dyn EngineHost) -> Result<()>;

    /// What it holds, without what is reserved.
    async fn inventory(&self, host: &dyn EngineHost) -> Result<Inventory>;

    /// Creates databases that are not there.
    async fn create_databases(
        &self,
        host: &dyn EngineHost,
        databases: &[DatabaseInfo],
    ) -> Result<()>;

    /// Drops a database if it is there.
    async fn drop_database(&self, host: &dyn EngineHost, name: &str) -> Result<()>;

    /// Creates users, or sets password and grants of those that are there.
    async fn create_users(&self, host: &dyn EngineHost, users: &[NewUser]) -> Result<()>;

    /// Changes a user.
    async fn change_user(&self, host: &dyn EngineHost, change: &UserChange) -> Result<()>;

    /// Drops a user if it is there.
    async fn drop_user(&self, host: &dyn EngineHost, name: &str, from: Option<&str>) -> Result<()>;

    /// Grants databases beside those the user has.
    async fn grant(
        &self,
        host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        databases: &[String],
    ) -> Result<()>;

    /// Takes a database from a user.
    async fn revoke(
        &self,
        host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        database: &str,
    ) -> Result<()>;

    /// Lets the superuser log in with this password.
    async fn enable_root(
        &self,
        host: &dyn EngineHost,
        password: &coffer_core::secret::Secret,
    ) -> Result<()>;

    /// Lets the superuser log in no more.
    async fn disable_root(&self, host: &dyn EngineHost) -> Result<()>;

    /// Creates a user that is hidden from the inventory and lives as long as somebody's visit.
    async fn admit_visitor(&self, _host: &dyn EngineHost, _user: &NewUser) -> Result<()> {
        Err(EngineError::Unsupported {
            engine: "this engine",
            operation: "visit",
            reason: "it has no users made for the occasion",
        })
    }

    /// Drops one visitor, or all that are there; what they made stays with the databases.
    async fn dismiss_visitors(&self, _host: &dyn EngineHost, _name: Option<&str>) -> Result<()> {
        Ok(())
    }

    /// Where an interactive client is connected to.
    fn client_address(&self, host: &dyn EngineHost) -> ClientAddress;

    /// Brings the data files to a state that a snapshot may be taken of, until released.
    async fn quiesce(&self, _host: &dyn EngineHost) -> Result<Box<dyn Hold>> {
        Err(EngineError::Unsupported {
            engine: "this engine",
            operation: "quiesce",
            reason: "its data files are consistent at any instant or cannot be held",
        })
    }
}

//! What MySQL and MariaDB have in common: names, sizes, the client's protocol, accounts, databases
//! and inventory. What differs is a [`Dialect`], which `mysql/` and `mariadb/` each have one of;
//! the kin of MySQL share its.
//!
//! What a tenant sees: a *user* is an account `name@host`; a grant is every right on a database.
//! *Root* is the account `root@%`, locked until root is enabled. Coffer's own account is
//! `coffer-agent@localhost`, which the server lets in over the local socket only, by the user id of
//! the agent's process: it has no password.

pub(crate) mod names;
pub(crate) mod parameters;
pub(crate) mod render;

#[cfg(feature = "guest")]
mod accounts;
#[cfg(feature = "guest")]
mod binlog;
#[cfg(feature = "guest")]
pub(crate) mod bootstrap;
#[cfg(feature = "guest")]
mod databases;
#[cfg(feature = "guest")]
mod house;
#[cfg(feature = "guest")]
mod identity;
#[cfg(feature = "guest")]
mod inventory;
#[cfg(feature = "guest")]
mod probe;
#[cfg(feature = "guest")]
mod protocol;
#[cfg(feature = "guest")]
mod quiesce;
#[cfg(feature = "guest")]
mod runtime;
#[cfg(feature = "guest")]
mod session;
#[cfg(feature = "guest")]
pub(crate) mod verifier;

#[cfg(feature = "guest")]
pub(crate) use runtime::Family;

use std::fmt::Debug;

use crate::engine::RenderContext;
use parameters::Sizes;

/// The port that both listen on.
pub(crate) const PORT: u16 = 3306;

/// In what one engine of the family differs from the others.
#[cfg_attr(feature = "guest", async_trait::async_trait)]
pub(crate) trait Dialect: Send + Sync + Debug {
    /// The engine's name, and that of its directory in the data volume.
    fn name(&self) -> &'static str;

    /// LIMIT: characters of a user's name.
    fn user_chars_max(&self) -> usize;

    /// Memory that the server needs beside its buffer pool; unit: MiB.
    fn overhead_mib(&self) -> u32;

    /// Lines of the option file that only this engine has.
    fn settings(&self, context: &RenderContext, sizes: &Sizes) -> String;

    /// Statements that run at every start before anybody is let in, and that make Coffer's account
    /// what it has to be: whatever a tenant's root did to it, a restart cures.
    fn own_account_sql(&self) -> &'static str;

    /// The server's program.
    #[cfg(feature = "guest")]
    fn server(&self) -> &'static str;

    /// Words of the server's command line that only this engine has.
    #[cfg(feature = "guest")]
    fn launch_words(&self) -> Vec<&'static str>;

    /// Makes the data directory of a template.
    #[cfg(feature = "guest")]
    async fn bootstrap(&self, host: &dyn crate::runtime::EngineHost) -> crate::Result<()>;

    /// Files of a data directory that tell a server from every other, for an identity: name and
    /// content.
    #[cfg(feature = "guest")]
    fn identity_files(&self, uuid: &str) -> Vec<(&'static str, String)>;

    /// How an account is let in by a password, in the words of `CREATE USER`; the password itself
    /// is not among them.
    #[cfg(feature = "guest")]
    fn identified(&self, password: &coffer_core::secret::Secret) -> crate::Result<String>;

    /// What `root` does not get of all privileges, as statements.
    #[cfg(feature = "guest")]
    fn restrict_root_sql(&self) -> &'static [&'static str];

    /// A query of one row: whether `root@%` is there and may log in.
    #[cfg(feature = "guest")]
    fn root_sql(&self) -> &'static str;

    /// A query of `name, host` of accounts that can log in.
    #[cfg(feature = "guest")]
    fn users_sql(&self) -> &'static str;

    /// An expression: the replication position.
    #[cfg(feature = "guest")]
    fn position_sql(&self) -> &'static str;

    /// A statement that makes the server read its certificate again.
    #[cfg(feature = "guest")]
    fn reload_sql(&self) -> &'static str;

    /// A query of one row of the binary log's file and position.
    #[cfg(feature = "guest")]
    fn log_position_sql(&self) -> &'static str;
}

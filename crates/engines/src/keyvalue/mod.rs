//! Redis and Valkey, which are one engine by two names: what differs is data, in a [`KeyValue`].
//!
//! What a tenant sees: a *user* is an ACL user who may touch every key and run every command but
//! those that would reach the process, its files or other users (`rights.rs`). *Root* is the
//! user `default`, which is off until root is enabled; it may look at more, and still reaches no
//! file and no user. There are no *databases*: the numbered ones have no names and belong to
//! everybody, so calls on databases and grants are refused with that reason. Coffer's own user is
//! `coffer`, whose password is made for each instance and can be read by the agent's user only.
//!
//! What is acknowledged is in the append-only file: how much of it survives is in
//! `docs/engines.md`.

mod names;
mod parameters;
mod render;

#[cfg(feature = "guest")]
mod accounts;
#[cfg(feature = "guest")]
mod bootstrap;
#[cfg(feature = "guest")]
pub mod identity;
#[cfg(feature = "guest")]
mod inventory;
#[cfg(feature = "guest")]
mod probe;
#[cfg(feature = "guest")]
pub mod resp;
#[cfg(feature = "guest")]
mod rights;
#[cfg(feature = "guest")]
mod runtime;
#[cfg(feature = "guest")]
mod session;

use crate::engine::{ConfigFile, Engine, Operation, RenderContext, Support};
use crate::error::{EngineError, Result};

/// The port on which clients are answered, with TLS only.
pub const PORT: u16 = 6379;

/// Why there is no list of databases.
const NO_DATABASES: &str = "databases are numbered, always there and shared by all users; \
                            name a number in the client (SELECT), or prefix the keys";

/// An engine of this kind.
#[derive(Debug, Clone, Copy)]
pub struct KeyValue {
    /// Its name in the registry.
    pub(crate) name: &'static str,
    /// Versions, newest first.
    pub(crate) versions: &'static [&'static str],
    /// Those of them that neither the tests nor a soak meets.
    pub(crate) unverified: &'static [&'static str],
    /// The server's program in the engine root.
    #[cfg(feature = "guest")]
    pub(crate) server: &'static str,
    /// Name of its configuration file.
    pub(crate) config_file: &'static str,
    /// Field of `INFO server` that tells its version.
    #[cfg(feature = "guest")]
    pub(crate) version_field: &'static str,
    /// Where it is for as long as the program runs.
    #[cfg(feature = "guest")]
    pub(crate) itself: fn() -> &'static KeyValue,
}

impl KeyValue {
    /// The refusal of whatever needs a database by name.
    fn no_databases(&self, operation: &'static str) -> EngineError {
        EngineError::Unsupported {
            engine: self.name,
            operation,
            reason: NO_DATABASES,
        }
    }
}

impl Engine for KeyValue {
    fn name(&self) -> &'static str {
        self.name
    }

    fn versions(&self) -> &'static [&'static str] {
        self.versions
    }

    fn unverified_versions(&self) -> &'static [&'static str] {
        self.unverified
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn root_user(&self) -> &'static str {
        names::ROOT
    }

    fn has_user_hosts(&self) -> bool {
        false
    }

    fn support(&self, operation: Operation) -> Support {
        match operation {
            Operation::Provision | Operation::User => Support::Yes,
            Operation::Schema => Support::Never(NO_DATABASES),
            Operation::Resize => Support::NotYet("instances of this engine cannot be resized yet"),
            Operation::Backup => Support::NotYet("backups of this engine are not there yet"),
            Operation::Configuration => {
                Support::NotYet("configuration groups of this engine are not there yet")
            }
            Operation::Cluster => Support::NotYet("clusters of this engine are not there yet"),
        }
    }

    fn check_database(
        &self,
        _name: &str,
        _character_set: Option<&str>,
        _collate: Option<&str>,
    ) -> Result<()> {
        Err(self.no_databases("databases by name"))
    }

    fn check_user(&self, name: &str, _host: Option<&str>) -> Result<()> {
        names::check(name)
    }

    fn is_reserved_database(&self, _name: &str) -> bool {
        false
    }

    fn is_reserved_user(&self, name: &str) -> bool {
        names::is_reserved(name)
    }

    fn render(&self, context: &RenderContext) -> Vec<ConfigFile> {
        vec![ConfigFile {
            name: self.config_file,
            content: render::settings(context),
        }]
    }

    #[cfg(feature = "guest")]
    fn runtime(&self) -> &'static dyn crate::runtime::EngineRuntime {
        (self.itself)()
    }
}

#[cfg(test)]
mod tests {
    use crate::redis::REDIS;

    use super::*;

    #[test]
    fn databases_are_refused_with_the_reason() {
        let error = REDIS.check_database("app", None, None).unwrap_err();
        assert_eq!(error.reason(), "unsupported");
        let text = error.to_string();
        assert!(text.contains("redis") && text.contains("SELECT"), "{text}");
    }
}

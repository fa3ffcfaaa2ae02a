//! PostgreSQL 15, 17 and 18, pure half: names, validation, capabilities; rendering is in
//! `render.rs`, sizes in `parameters.rs`.
//!
//! What a tenant sees: a *user* is a login role without superuser; a *database* belongs to a group
//! role of its own, and a grant is membership in that group, so that everyone who was granted a
//! database has full use of it and of what the others make in it. *Root* is the role `postgres`,
//! a superuser that cannot log in until root is enabled. Coffer's own role is `coffer`, the
//! bootstrap superuser, which can only be reached over the local socket by the agent's user.

mod names;
mod parameters;
mod render;

#[cfg(feature = "guest")]
mod accounts;
#[cfg(feature = "guest")]
mod bootstrap;
#[cfg(feature = "guest")]
mod databases;
#[cfg(feature = "guest")]
pub mod identity;
#[cfg(feature = "guest")]
mod inventory;
#[cfg(feature = "guest")]
mod probe;
#[cfg(feature = "guest")]
mod quiesce;
#[cfg(feature = "guest")]
mod runtime;
#[cfg(feature = "guest")]
mod session;

use crate::engine::{ConfigFile, Engine, Operation, RenderContext, Support};
use crate::error::Result;

/// The port that PostgreSQL listens on.
pub const PORT: u16 = 5432;

/// The engine of the datastore `postgresql`.
#[derive(Debug, Clone, Copy)]
pub struct Postgresql;

impl Engine for Postgresql {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn versions(&self) -> &'static [&'static str] {
        &["18", "17", "15"]
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
            Operation::Provision | Operation::Schema | Operation::User => Support::Yes,
            Operation::Resize => Support::NotYet("instances of postgresql cannot be resized yet"),
            Operation::Backup => Support::NotYet("backups of postgresql are not there yet"),
            Operation::Configuration => {
                Support::NotYet("configuration groups of postgresql are not there yet")
            }
            Operation::Cluster => Support::NotYet("clusters of postgresql are not there yet"),
        }
    }

    fn check_database(
        &self,
        name: &str,
        character_set: Option<&str>,
        collate: Option<&str>,
    ) -> Result<()> {
        names::check("database name", name)?;
        names::check_locale(character_set, collate)
    }

    fn check_user(&self, name: &str, _host: Option<&str>) -> Result<()> {
        names::check("user name", name)
    }

    fn is_reserved_database(&self, name: &str) -> bool {
        names::is_reserved_database(name)
    }

    fn is_reserved_user(&self, name: &str) -> bool {
        names::is_reserved_user(name)
    }

    fn render(&self, context: &RenderContext) -> Vec<ConfigFile> {
        render::files(context)
    }

    #[cfg(feature = "guest")]
    fn runtime(&self) -> &'static dyn crate::runtime::EngineRuntime {
        &Self
    }
}

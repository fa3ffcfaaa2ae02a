//! What Coffer can do with an engine and version today, as data: for the API, for `coffer datastore
//! show` and for the README's matrix, which is compared with it.
//!
//! Nothing is stated twice: everything follows from what [`Engine`] says, which is also what
//! requests are refused by. So what is shown here and what is answered cannot part.

use crate::engine::{Engine, Operation, Support};

/// Why an operation of a version is [`Level::Unverified`].
const UNVERIFIED: &str =
    "it is there, but neither the tests nor a soak has met the real server of this version";

/// The same of an engine that there are no recipes for.
pub(crate) const UNTRIED: &str = "it is written as its maker says and was never run: no test has \
                                  met a real server, and a root needs a recipe of one's own";

/// Why an engine without databases by name supports users in part.
const NO_GRANTS: &str = "users and root; there are no grants, because databases have no names";

/// How far an operation goes with a version, in the words of the support matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It works, and the tests or a soak (`docs/soak.md`) show it with the real server.
    Yes,
    /// Some of it does; the reason says what does not.
    Partial,
    /// It is there, but neither the tests nor a soak has met the real server.
    Unverified,
    /// The API answers 501 with the reason.
    NotYet,
}

impl Level {
    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partial => "partial",
            Self::Unverified => "unverified",
            Self::NotYet => "not-yet",
        }
    }
}

/// One operation of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// The operation.
    pub operation: Operation,
    /// How far it goes.
    pub level: Level,
    /// Why no further, in one sentence; none beside [`Level::Yes`].
    pub reason: Option<&'static str>,
}

/// What can be done with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Each operation of the support matrix, in its order.
    pub operations: Vec<Capability>,
    /// Whether instances can be started, stopped and restarted.
    pub has_power: bool,
    /// Whether databases are made and dropped by name.
    pub has_databases: bool,
    /// Whether users are made, changed and dropped.
    pub has_users: bool,
    /// Whether users have a host part.
    pub has_user_hosts: bool,
    /// Whether a user is granted databases.
    pub has_grants: bool,
    /// The superuser that can be enabled, where there is one.
    pub root_user: Option<&'static str>,
    /// Whether clients are let in over TLS only.
    pub requires_tls: bool,
    /// Port that clients are answered on.
    pub port: u16,
}

/// What can be done with this version of an engine (`17`, or as an operator numbers it, `17.6`).
pub fn of(engine: &dyn Engine, version: &str) -> Capabilities {
    let is_there = |operation| engine.support(operation) == Support::Yes;
    let (has_databases, has_users) = (is_there(Operation::Schema), is_there(Operation::User));
    Capabilities {
        operations: Operation::ALL
            .iter()
            .map(|operation| capability(engine, version, *operation))
            .collect(),
        has_power: is_there(Operation::Provision),
        has_databases,
        has_users,
        has_user_hosts: has_users && engine.has_user_hosts(),
        // A grant is the right to a database, so it needs both.
        has_grants: has_users && has_databases,
        root_user: has_users.then(|| engine.root_user()),
        // A rule of the house, so no engine is asked; the end-to-end tests try each without TLS.
        requires_tls: true,
        port: engine.port(),
    }
}

/// How far one operation goes with this version.
pub fn capability(engine: &dyn Engine, version: &str, operation: Operation) -> Capability {
    let (level, reason) = match engine.support(operation) {
        Support::NotYet(reason) | Support::Never(reason) => (Level::NotYet, Some(reason)),
        Support::Yes if !engine.has_recipes() => (Level::Unverified, Some(UNTRIED)),
        Support::Yes if !is_verified(engine, version) => (Level::Unverified, Some(UNVERIFIED)),
        Support::Yes if operation == Operation::User && !has_databases(engine) => {
            (Level::Partial, Some(NO_GRANTS))
        }
        Support::Yes => (Level::Yes, None),
    };
    Capability {
        operation,
        level,
        reason,
    }
}

fn has_databases(engine: &dyn Engine) -> bool {
    engine.support(Operation::Schema) == Support::Yes
}

/// Whether it is one of the engine's versions, and of those that tests or soaks have met. A recipe
/// of an operator's own may name another.
fn is_verified(engine: &dyn Engine, version: &str) -> bool {
    let is_of = |known: &str| {
        let rest = version.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let known = engine.versions().iter().find(|known| is_of(known));
    known.is_some_and(|known| !engine.unverified_versions().contains(known))
}

#[cfg(test)]
mod tests {
    use crate::mariadb::Mariadb;
    use crate::percona::PERCONA;
    use crate::postgresql::Postgresql;
    use crate::redis::REDIS;
    use crate::registry::registry;

    use super::*;

    fn level(engine: &dyn Engine, version: &str, operation: Operation) -> Level {
        capability(engine, version, operation).level
    }

    #[test]
    fn every_version_has_every_operation_and_says_why_where_it_is_not_whole() {
        for engine in registry() {
            for version in engine.versions() {
                let found = of(*engine, version);
                let operations: Vec<_> = found.operations.iter().map(|c| c.operation).collect();
                assert_eq!(operations, Operation::ALL, "{engine:?} {version}");
                for one in found.operations {
                    let is_whole = one.level == Level::Yes;
                    assert_eq!(one.reason.is_none(), is_whole, "{engine:?} {one:?}");
                }
            }
        }
    }

    #[test]
    fn an_engine_marks_only_versions_that_it_has() {
        for engine in registry() {
            let (all, marked) = (engine.versions(), engine.unverified_versions());
            assert!(
                marked.iter().all(|version| all.contains(version)),
                "{engine:?}"
            );
        }
    }

    /// An engine has recipes of all that it knows, or of nothing.
    #[test]
    fn each_version_has_its_recipe_unless_its_engine_says_that_none_has() {
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images");
        for engine in registry() {
            for version in engine.versions() {
                let name = format!("{}-{version}", engine.name());
                let recipe = std::path::Path::new(images).join(format!("{name}.toml"));
                assert_eq!(recipe.exists(), engine.has_recipes(), "{name}");
                let is_marked = engine.unverified_versions().contains(version);
                assert!(engine.has_recipes() || is_marked, "{name}");
            }
        }
    }

    #[test]
    fn what_was_never_run_is_unverified_whatever_its_version() {
        for version in ["8.4", "9.7"] {
            for found in of(&PERCONA, version).operations {
                let is_there = PERCONA.support(found.operation) == Support::Yes;
                let wanted = match is_there {
                    true => (Level::Unverified, Some(UNTRIED)),
                    false => (Level::NotYet, found.reason),
                };
                assert_eq!((found.level, found.reason), wanted, "{found:?}");
            }
        }
    }

    #[test]
    fn what_follows_from_numbered_databases_is_said() {
        let redis = of(&REDIS, "8.0");
        assert!(redis.has_users && !redis.has_databases && !redis.has_grants);
        assert_eq!(redis.root_user, Some("default"));
        assert_eq!(level(&REDIS, "8.0", Operation::Schema), Level::NotYet);
        assert_eq!(level(&REDIS, "8.0", Operation::User), Level::Partial);
        let mariadb = of(&Mariadb, "11.8");
        assert!(mariadb.has_grants && mariadb.has_user_hosts);
    }

    #[test]
    fn a_version_that_no_run_meets_is_unverified() {
        let provision = |version| level(&Postgresql, version, Operation::Provision);
        assert_eq!(
            (provision("17"), provision("17.6")),
            (Level::Yes, Level::Yes)
        );
        assert_eq!(
            (provision("16"), provision("170")),
            (Level::Unverified, Level::Unverified)
        );
        assert_eq!(level(&Mariadb, "10.11", Operation::User), Level::Yes);
        assert_eq!(level(&Mariadb, "10.11", Operation::Backup), Level::NotYet);
    }
}

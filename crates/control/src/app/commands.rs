//! Commands for an instance's engine: checked here, sealed, and run by a task.
//!
//! They may hold passwords, so that they lie encrypted until the task erases them. The API waits a
//! moment for the task, so that a client that reads right after has what it wrote.

use std::collections::BTreeSet;
use std::time::Duration;

use coffer_core::id::TaskId;
use coffer_core::secret::Secret;
use coffer_core::task::{Task, TaskState};
use coffer_engines::Engine;
use coffer_store::instance::InstanceView;
use coffer_wire::guest::v1::{DatabaseSpec, Operation, UserSpec};

use super::{AppState, RequestContext};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::workflow::run_commands::{self, RunCommandsInput};

/// A database asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDatabase {
    /// Its name.
    pub name: String,
    /// Character set.
    pub character_set: Option<String>,
    /// Collation.
    pub collate: Option<String>,
}

/// A user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedUser {
    /// Its name.
    pub name: String,
    /// Its host part.
    pub host: Option<String>,
    /// Its password.
    pub password: Secret,
    /// Databases it is granted.
    pub databases: Vec<String>,
}

/// Databases and users asked for together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Databases.
    pub databases: Vec<WantedDatabase>,
    /// Users.
    pub users: Vec<WantedUser>,
}

/// The commands that make the content of a new instance, in which users may be granted only what
/// is made with them.
pub fn operations(engine: &'static dyn Engine, content: &Content) -> Result<Vec<Operation>> {
    let mut commands = Vec::new();
    if !content.databases.is_empty() {
        commands.push(create_databases(engine, &content.databases)?);
    }
    if !content.users.is_empty() {
        let command = create_users(engine, &content.users)?;
        let known: BTreeSet<_> = content
            .databases
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        for user in &content.users {
            let unknown = user
                .databases
                .iter()
                .find(|one| !known.contains(one.as_str()));
            if let Some(database) = unknown {
                return Err(not_in_the_list(&user.name, database));
            }
        }
        commands.push(command);
    }
    Ok(commands)
}

fn not_in_the_list(user: &str, database: &str) -> Error {
    let (user, database) = (
        coffer_core::name::shown(user),
        coffer_core::name::shown(database),
    );
    let message = format!(
        "The request indicates that user {user} should have access to database {database}, but \
         database {database} is not included in the initial databases list."
    );
    Error::new(Kind::BadRequest, "database-missing", message)
}

/// The command that makes databases.
pub fn create_databases(
    engine: &'static dyn Engine,
    databases: &[WantedDatabase],
) -> Result<Operation> {
    bounded("databases", databases.len())?;
    unique("database", databases.iter().map(|one| one.name.clone()))?;
    for one in databases {
        let (character_set, collate) = (one.character_set.as_deref(), one.collate.as_deref());
        engine.check_database(&one.name, character_set, collate)?;
        not_reserved(
            "database",
            &one.name,
            engine.is_reserved_database(&one.name),
        )?;
    }
    let spec = |one: &WantedDatabase| DatabaseSpec {
        name: one.name.clone(),
        character_set: one.character_set.clone(),
        collate: one.collate.clone(),
    };
    Ok(Operation::CreateDatabases {
        databases: databases.iter().map(spec).collect(),
    })
}

/// The command that makes users.
pub fn create_users(engine: &'static dyn Engine, users: &[WantedUser]) -> Result<Operation> {
    bounded("users", users.len())?;
    unique(
        "user",
        users
            .iter()
            .map(|one| format!("{}@{}", one.name, host(one.host.as_deref()))),
    )?;
    for one in users {
        check_user(engine, &one.name, one.host.as_deref())?;
        engine.check_password(one.password.expose())?;
        bounded_grants(one.databases.len())?;
        for name in &one.databases {
            engine.check_database(name, None, None)?;
        }
    }
    let spec = |one: &WantedUser| UserSpec {
        name: one.name.clone(),
        host: one.host.clone(),
        password: one.password.expose().to_owned(),
        databases: one.databases.clone(),
    };
    Ok(Operation::CreateUsers {
        users: users.iter().map(spec).collect(),
    })
}

/// Whether a user of this name may be made, changed or dropped.
pub fn check_user(engine: &'static dyn Engine, name: &str, host: Option<&str>) -> Result<()> {
    engine.check_user(name, host)?;
    not_reserved("user", name, engine.is_reserved_user(name))
}

/// Refuses the engine's own databases and users.
pub fn not_reserved(kind: &str, name: &str, is_reserved: bool) -> Result<()> {
    match is_reserved {
        false => Ok(()),
        true => Err(Error::new(
            Kind::BadRequest,
            "reserved-name",
            format!(
                "the {kind} '{}' belongs to the engine",
                coffer_core::name::shown(name)
            ),
        )),
    }
}

/// The host part as it is shown: engines without one have any.
pub fn host(host: Option<&str>) -> &str {
    host.filter(|host| !host.is_empty()).unwrap_or("%")
}

fn bounded(what: &str, count: usize) -> Result<()> {
    match count {
        0 => Err(Error::invalid(format!("{what} [] is too short"))),
        1..=limits::CONTENT_ITEMS_MAX => Ok(()),
        _ => Err(Error::invalid(format!(
            "{what} has {count} elements, at most {} are taken at once",
            limits::CONTENT_ITEMS_MAX
        ))),
    }
}

fn bounded_grants(count: usize) -> Result<()> {
    if count == 0 {
        Ok(())
    } else {
        bounded("databases of a user", count)
    }
}

fn unique(kind: &str, names: impl Iterator<Item = String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if seen.contains(&name) {
            let shown = coffer_core::name::shown(&name);
            let what = if kind == "user" {
                "name and host"
            } else {
                "name"
            };
            let message = format!(
                "Two or more {kind}s share the same {what} in the initial {kind}s list. Please \
                 correct the names or remove the duplicate entries."
            );
            return Err(Error::new(Kind::BadRequest, "duplicate", message)
                .with_hint(format!("'{shown}' is named twice")));
        }
        seen.insert(name);
    }
    Ok(())
}

/// Runs commands on the instance's engine. `Ok` also when they still run after the wait.
pub async fn run(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    commands: &[Operation],
) -> Result<()> {
    let id = begin(app, context, view, commands).await?;
    let ended = within(app, id, limits::COMMANDS_ANSWER_WAIT).await;
    ended.unwrap_or(Ok(()))
}

/// Runs commands whose end the answer depends on: what still runs after a longer wait is an error,
/// although it may be done later.
pub async fn run_to_end(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    commands: &[Operation],
) -> Result<()> {
    let id = begin(app, context, view, commands).await?;
    let ended = within(app, id, limits::COMMANDS_END_WAIT).await;
    ended.unwrap_or_else(|| {
        let seconds = limits::COMMANDS_END_WAIT.as_secs();
        let message = format!(
            "The instance's guest has not done this within {seconds} s. It may still be done; what \
             holds is not known yet."
        );
        let hint = "ask explain what the instance waits for, and repeat the request when that is \
                    over: a repeated request holds whatever became of this one";
        Err(Error::new(Kind::Unprocessable, "no-answer", message).with_hint(hint))
    })
}

/// Stores the task that runs commands.
async fn begin(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    commands: &[Operation],
) -> Result<TaskId> {
    let instance = &view.instance;
    let new = context.new_task(app, &instance.tenant_id, instance.id)?;
    let id = new.id;
    let vault = app.vault();
    let sealing = vault.seal_commands(&instance.tenant_id, instance.id, commands);
    let sealed = Box::pin(sealing).await?;
    let input = RunCommandsInput {
        instance_id: instance.id,
        set_id: instance.set_id,
        commands_secret: sealed.id,
    };
    let task = run_commands::task(new, &input);
    app.store.insert_sealed_task(&task, &sealed).await?;
    Ok(id)
}

/// How a task ended; `None` when it has not within this time.
async fn within(app: &AppState, id: TaskId, limit: Duration) -> Option<Result<()>> {
    let end = Box::pin(end_of(app, id));
    tokio::select! {
        answer = end => Some(answer),
        () = app.clock.sleep(limit) => None,
    }
}

/// Waits until a task has ended, of which a wake-up tells; looks from time to time all the same.
async fn end_of(app: &AppState, id: TaskId) -> Result<()> {
    let mut wakeups = app.store.subscribe();
    loop {
        match app.store.find_task(id).await? {
            Some(task) if task.state.is_ended() || task.state == TaskState::Stuck => {
                return ended(&task);
            }
            Some(_) => {}
            None => return Ok(()),
        }
        tokio::select! {
            () = wakeups.wait() => {}
            () = app.clock.sleep(limits::POLL_SAFETY_NET) => {}
        }
    }
}

/// What an ended task means for the request that asked for it.
fn ended(task: &Task) -> Result<()> {
    let message = task
        .error
        .clone()
        .unwrap_or_else(|| "the commands were not run".to_owned());
    match task.state {
        TaskState::Done | TaskState::Ready | TaskState::Running => Ok(()),
        TaskState::Failed if run_commands::is_exists(&message) => {
            Err(Error::new(Kind::BadRequest, "exists", message))
        }
        TaskState::Failed => Err(Error::new(Kind::Unprocessable, "command-failed", message)),
        TaskState::Cancelled => Err(Error::new(
            Kind::Unprocessable,
            "command-cancelled",
            "the instance is being deleted: the commands were not run",
        )),
        TaskState::Stuck => Err(Error::internal(format!(
            "task {} is stuck: {message}",
            task.id
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(name: &str) -> WantedDatabase {
        WantedDatabase {
            name: name.to_owned(),
            character_set: None,
            collate: None,
        }
    }

    fn user(name: &str, databases: &[&str]) -> WantedUser {
        WantedUser {
            name: name.to_owned(),
            host: None,
            password: Secret::new("pw".to_owned()),
            databases: databases.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn engine() -> &'static dyn Engine {
        coffer_engines::engine("postgresql").unwrap()
    }

    #[test]
    fn content_of_a_new_instance_is_checked() {
        let content = |databases: &[&str], users: Vec<WantedUser>| Content {
            databases: databases.iter().map(|name| database(name)).collect(),
            users,
        };
        let good = content(&["a", "b"], vec![user("u", &["b"])]);
        assert_eq!(operations(engine(), &good).unwrap().len(), 2);
        assert_eq!(operations(engine(), &Content::default()).unwrap(), []);
        for bad in [
            content(&["a", "a"], vec![]),
            content(&["a"], vec![user("u", &["b"])]),
            content(&["a"], vec![user("u", &[]), user("u", &[])]),
            content(&["postgres"], vec![]),
            content(&["a"], vec![user("postgres", &[])]),
            content(&[""], vec![]),
        ] {
            assert!(operations(engine(), &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_engine_without_databases_says_so() {
        let redis = coffer_engines::engine("redis").unwrap();
        let content = |databases: &[&str], users: Vec<WantedUser>| Content {
            databases: databases.iter().map(|name| database(name)).collect(),
            users,
        };
        let good = content(&[], vec![user("u", &[])]);
        assert_eq!(operations(redis, &good).unwrap().len(), 1);
        for bad in [
            content(&["a"], vec![]),
            content(&[], vec![user("u", &["a"])]),
        ] {
            let error = operations(redis, &bad).unwrap_err();
            assert_eq!(error.kind, Kind::NotImplemented, "{error:?}");
        }
    }
}

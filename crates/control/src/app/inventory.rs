//! Databases, users, grants and root of an instance: read from what its guest last reported,
//! changed by commands.

use coffer_core::instance::{Health, Instance, Lifecycle};
use coffer_core::secret::Secret;
use coffer_engines::Engine;
use coffer_engines::engine::{Operation as Ability, Support};
use coffer_store::instance::InstanceView;
use coffer_store::inventory::{StoredDatabase, StoredUser};
use coffer_wire::guest::v1::{Operation, UserChange};

use super::commands::{
    self, WantedDatabase, WantedUser, check_user, host, not_reserved, run, run_to_end,
};
use super::{AppState, RequestContext};
use crate::clock::random_text;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::workflow::run_commands;

/// Length of a generated password: Trove's `default_password_length`.
const PASSWORD_CHARS: usize = 36;

/// A user of an engine as paths name it: `name` or `name@host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    /// Its name.
    pub name: String,
    /// Its host part.
    pub host: Option<String>,
}

impl UserName {
    /// Reads the path's segment: split at the last `@`, or, where users of the instance's engine
    /// have no host part, only freed of the `@%` that clients append.
    pub fn parse(view: &InstanceView, text: &str) -> Self {
        let has_hosts = coffer_engines::engine(&view.manager).is_some_and(|e| e.has_user_hosts());
        Self::split(text, has_hosts)
    }

    fn split(text: &str, has_hosts: bool) -> Self {
        match text.rsplit_once('@') {
            Some((name, host)) if !name.is_empty() && (has_hosts || host == "%") => Self {
                name: name.to_owned(),
                host: Some(host.to_owned()),
            },
            _ => Self {
                name: text.to_owned(),
                host: None,
            },
        }
    }

    fn shown_host(&self) -> &str {
        host(self.host.as_deref())
    }
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New name.
    pub name: Option<String>,
    /// New password.
    pub password: Option<Secret>,
    /// New host part.
    pub host: Option<String>,
}

/// The engine of an instance that is ready for `ability`.
async fn ready(
    app: &AppState,
    view: &InstanceView,
    ability: Ability,
) -> Result<&'static dyn Engine> {
    let engine = engine(view)?;
    match engine.support(ability) {
        Support::Yes => {}
        Support::NotYet(reason) | Support::Never(reason) => {
            return Err(Error::new(Kind::NotImplemented, "unsupported", reason));
        }
    }
    let instance = settled(app, &view.instance).await?;
    let is_ready = matches!(instance.lifecycle, Lifecycle::Active | Lifecycle::Updating)
        && matches!(instance.health, Health::Healthy | Health::RestartRequired);
    if is_ready {
        return Ok(engine);
    }
    let status = match instance.lifecycle {
        Lifecycle::Active => instance.health.as_str(),
        other => other.as_str(),
    };
    let message = format!("Instance {} is not ready, status: {status}.", instance.id);
    Err(Error::new(Kind::Unprocessable, "not-ready", message)
        .with_hint("wait until the operating status is HEALTHY, or ask explain why it is not"))
}

/// The instance once the conductor's news of it has come: the workflow that has just made it
/// ACTIVE may have heard from the guest before the conductor has.
async fn settled(app: &AppState, instance: &Instance) -> Result<Instance> {
    let mut seen = instance.clone();
    let end = app.clock.monotonic() + limits::NEWS_WAIT;
    while seen.lifecycle == Lifecycle::Active
        && matches!(
            seen.health,
            Health::Unknown | Health::Starting | Health::Shutdown
        )
        && app.clock.monotonic() < end
    {
        app.clock.sleep(limits::NEWS_PACE).await;
        match app.store.find_instance(seen.id).await? {
            Some(now) => seen = now,
            None => break,
        }
    }
    Ok(seen)
}

fn engine(view: &InstanceView) -> Result<&'static dyn Engine> {
    coffer_engines::engine(&view.manager).ok_or_else(|| {
        let message = format!("this build of Coffer has no engine '{}'", view.manager);
        Error::new(Kind::NotImplemented, "engine-unknown", message)
    })
}

/// The host part as the engine knows it: none where users have none, whatever a client sends.
fn known_host(engine: &dyn Engine, host: Option<&String>) -> Option<String> {
    host.filter(|_| engine.has_user_hosts()).cloned()
}

/// A page of databases, and the marker of the next one.
pub async fn list_databases(
    app: &AppState,
    view: &InstanceView,
    marker: Option<&str>,
    limit: u32,
) -> Result<(Vec<StoredDatabase>, Option<String>)> {
    ready(app, view, Ability::Schema).await?;
    let mut rows = app
        .store
        .list_databases(view.instance.id, marker, limit + 1)
        .await?;
    let next = cut(&mut rows, limit).map(|last| last.name.clone());
    Ok((rows, next))
}

/// A page of users, and the marker of the next one.
pub async fn list_users(
    app: &AppState,
    view: &InstanceView,
    marker: Option<&str>,
    limit: u32,
) -> Result<(Vec<StoredUser>, Option<String>)> {
    ready(app, view, Ability::User).await?;
    let mut rows = app
        .store
        .list_db_users(view.instance.id, marker, limit + 1)
        .await?;
    let next = cut(&mut rows, limit).map(|last| format!("{}@{}", last.name, last.host));
    Ok((rows, next))
}

/// Cuts the row that only told that there is another page; gives the last one kept then.
fn cut<T>(rows: &mut Vec<T>, limit: u32) -> Option<&T> {
    let limit = limit as usize;
    if rows.len() <= limit {
        return None;
    }
    rows.truncate(limit);
    rows.last()
}

/// The user with this name and host.
pub async fn get_user(app: &AppState, view: &InstanceView, user: &UserName) -> Result<StoredUser> {
    ready(app, view, Ability::User).await?;
    let found = app
        .store
        .find_db_user(view.instance.id, &user.name, user.shown_host())
        .await?;
    found.ok_or_else(|| {
        Error::not_found(
            "database user",
            &format!("{}@{}", user.name, user.shown_host()),
        )
    })
}

/// Makes databases.
pub async fn create_databases(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    databases: &[WantedDatabase],
) -> Result<()> {
    let engine = ready(app, view, Ability::Schema).await?;
    let command = commands::create_databases(engine, databases)?;
    for one in databases {
        if app
            .store
            .find_database(view.instance.id, &one.name)
            .await?
            .is_some()
        {
            return Err(exists("database", &one.name));
        }
    }
    run(app, context, view, &[command]).await
}

/// Drops a database.
pub async fn delete_database(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    name: &str,
) -> Result<()> {
    let engine = ready(app, view, Ability::Schema).await?;
    engine.check_database(name, None, None)?;
    not_reserved("database", name, engine.is_reserved_database(name))?;
    if app
        .store
        .find_database(view.instance.id, name)
        .await?
        .is_none()
    {
        return Err(Error::not_found("database", name));
    }
    run(
        app,
        context,
        view,
        &[Operation::DropDatabase {
            name: name.to_owned(),
        }],
    )
    .await
}

/// Makes users.
pub async fn create_users(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    users: &[WantedUser],
) -> Result<()> {
    let engine = ready(app, view, Ability::User).await?;
    let users: Vec<_> = users
        .iter()
        .map(|user| WantedUser {
            host: known_host(engine, user.host.as_ref()),
            ..user.clone()
        })
        .collect();
    let command = commands::create_users(engine, &users)?;
    for one in &users {
        let shown_host = host(one.host.as_deref());
        if app
            .store
            .find_db_user(view.instance.id, &one.name, shown_host)
            .await?
            .is_some()
        {
            return Err(exists("user", &one.name));
        }
        for database in &one.databases {
            existing_database(app, view, database).await?;
        }
    }
    run(app, context, view, &[command]).await
}

fn exists(kind: &str, name: &str) -> Error {
    Error::new(Kind::BadRequest, "exists", run_commands::exists(kind, name))
}

async fn existing_database(app: &AppState, view: &InstanceView, name: &str) -> Result<()> {
    match app.store.find_database(view.instance.id, name).await? {
        Some(_) => Ok(()),
        None => Err(Error::not_found("database", name)),
    }
}

/// Sets passwords of users that are there.
pub async fn set_passwords(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    users: &[(UserName, Secret)],
) -> Result<()> {
    let engine = ready(app, view, Ability::User).await?;
    let mut changes = Vec::new();
    for (user, password) in users {
        let host = known_host(engine, user.host.as_ref());
        let user = &UserName {
            name: user.name.clone(),
            host,
        };
        check_user(engine, &user.name, user.host.as_deref())?;
        engine.check_password(password.expose())?;
        get_user(app, view, user).await?;
        changes.push(UserChange {
            name: user.name.clone(),
            host: user.host.clone(),
            new_name: None,
            new_host: None,
            new_password: Some(password.expose().to_owned()),
        });
    }
    run(app, context, view, &[Operation::ChangeUsers { changes }]).await
}

/// Changes one user.
pub async fn change_user(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    user: &UserName,
    change: &Change,
) -> Result<()> {
    let engine = ready(app, view, Ability::User).await?;
    check_user(engine, &user.name, user.host.as_deref())?;
    get_user(app, view, user).await?;
    if let Some(password) = &change.password {
        engine.check_password(password.expose())?;
    }
    let new_host = known_host(engine, change.host.as_ref());
    if change.name.is_some() || new_host.is_some() {
        let new_name = change.name.as_ref().unwrap_or(&user.name);
        let asked = new_host.as_ref().or(user.host.as_ref());
        let asked = asked.map(String::as_str);
        check_user(engine, new_name, asked)?;
        let is_same = *new_name == user.name && host(asked) == user.shown_host();
        let taken = app
            .store
            .find_db_user(view.instance.id, new_name, host(asked))
            .await?;
        if taken.is_some() && !is_same {
            return Err(exists("user", new_name));
        }
    }
    let changes = vec![UserChange {
        name: user.name.clone(),
        host: user.host.clone(),
        new_name: change.name.clone(),
        new_host,
        new_password: change
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
    }];
    run(app, context, view, &[Operation::ChangeUsers { changes }]).await
}

/// Drops a user.
pub async fn delete_user(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    user: &UserName,
) -> Result<()> {
    let engine = ready(app, view, Ability::User).await?;
    check_user(engine, &user.name, user.host.as_deref())?;
    get_user(app, view, user).await?;
    let command = Operation::DropUser {
        name: user.name.clone(),
        host: user.host.clone(),
    };
    run(app, context, view, &[command]).await
}

/// Grants a user databases beside those it has.
pub async fn grant(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    user: &UserName,
    databases: Vec<String>,
) -> Result<()> {
    let engine = ready(app, view, Ability::Schema).await?;
    check_user(engine, &user.name, user.host.as_deref())?;
    get_user(app, view, user).await?;
    if databases.len() > crate::limits::CONTENT_ITEMS_MAX {
        return Err(Error::invalid("databases has too many elements"));
    }
    for name in &databases {
        engine.check_database(name, None, None)?;
        existing_database(app, view, name).await?;
    }
    if databases.is_empty() {
        return Ok(());
    }
    let (name, host) = (user.name.clone(), user.host.clone());
    run(
        app,
        context,
        view,
        &[Operation::Grant {
            name,
            host,
            databases,
        }],
    )
    .await
}

/// Takes a database from a user.
pub async fn revoke(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    user: &UserName,
    database: &str,
) -> Result<()> {
    let engine = ready(app, view, Ability::Schema).await?;
    check_user(engine, &user.name, user.host.as_deref())?;
    let has = get_user(app, view, user).await?;
    if !has.databases.iter().any(|name| name == database) {
        return Err(Error::not_found("database", database));
    }
    let command = Operation::Revoke {
        name: user.name.clone(),
        host: user.host.clone(),
        database: database.to_owned(),
    };
    run(app, context, view, &[command]).await
}

/// Whether root was enabled and not disabled since.
pub async fn is_root_enabled(app: &AppState, view: &InstanceView) -> Result<bool> {
    ready(app, view, Ability::User).await?;
    Ok(app.store.is_root_enabled(view.instance.id).await?)
}

/// Lets the superuser log in: its name and password, shown this once.
pub async fn enable_root(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    password: Option<Secret>,
) -> Result<(&'static str, Secret)> {
    let engine = ready(app, view, Ability::User).await?;
    let password =
        password.unwrap_or_else(|| Secret::new(random_text(&*app.entropy, PASSWORD_CHARS)));
    engine.check_password(password.expose())?;
    let command = Operation::EnableRoot {
        password: password.expose().to_owned(),
    };
    run_to_end(app, context, view, &[command]).await?;
    Ok((engine.root_user(), password))
}

/// Lets the superuser log in no more; root must have been enabled once.
pub async fn disable_root(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
) -> Result<()> {
    ready(app, view, Ability::User).await?;
    if app
        .store
        .get_root_enabled(view.instance.id)
        .await?
        .is_none()
    {
        return Err(Error::new(
            Kind::NotFound,
            "root-never-enabled",
            "Root user has never been enabled on the instance.",
        ));
    }
    run_to_end(app, context, view, &[Operation::DisableRoot]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_split_at_the_last_at_sign() {
        let of = |text: &str, has_hosts| {
            let user = UserName::split(text, has_hosts);
            (user.name, user.host)
        };
        assert_eq!(of("u", true), ("u".to_owned(), None));
        assert_eq!(of("u@%", true), ("u".to_owned(), Some("%".to_owned())));
        assert_eq!(
            of("a@b@10.0.0.1", true),
            ("a@b".to_owned(), Some("10.0.0.1".to_owned()))
        );
        assert_eq!(of("@h", true), ("@h".to_owned(), None));
        assert_eq!(of("a@b", false), ("a@b".to_owned(), None));
        assert_eq!(of("a@b@%", false), ("a@b".to_owned(), Some("%".to_owned())));
    }
}

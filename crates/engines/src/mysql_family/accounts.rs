//! Users, grants and root.
//!
//! Passwords are turned into verifiers here, so the server never sees one. What a user made stays
//! with the databases: nothing in them has an owner.

use coffer_core::secret::Secret;

use super::names::{self, ROOT, VISITOR_PREFIX, account, host_or_any, pattern, quote, text};
use super::session::{self, Session};
use super::{Dialect, databases};
use crate::error::{EngineError, Result};
use crate::runtime::{EngineHost, NewUser, UserChange};

/// Creates users, or sets password and grants of those that are there.
pub(super) async fn create(
    dialect: &dyn Dialect,
    host: &dyn EngineHost,
    users: &[NewUser],
) -> Result<()> {
    let mut own = session::open(host).await?;
    for user in users {
        names::check_user(dialect, &user.name, user.host.as_deref())?;
        refuse_reserved(&user.name)?;
        put(dialect, &mut own, user).await?;
    }
    Ok(())
}

async fn put(dialect: &dyn Dialect, own: &mut Session, user: &NewUser) -> Result<()> {
    let from = host_or_any(user.host.as_deref());
    let who = account(&user.name, from);
    let how = dialect.identified(&user.password)?;
    let sql = format!("CREATE USER IF NOT EXISTS {who} {how}");
    own.run("create the user", &sql).await?;
    let sql = format!("ALTER USER {who} {how}");
    own.run("set the password", &sql).await?;
    grant_all(own, &who, &user.databases).await
}

/// Creates a user for a visit.
pub(super) async fn admit_visitor(
    dialect: &dyn Dialect,
    host: &dyn EngineHost,
    user: &NewUser,
) -> Result<()> {
    names::check_user(dialect, &user.name, None)?;
    if !user.name.starts_with(VISITOR_PREFIX) {
        let rule = format!("has to begin with {VISITOR_PREFIX}");
        return Err(names::invalid("user name", &user.name, &rule));
    }
    put(dialect, &mut session::open(host).await?, user).await
}

/// Drops a visitor, or all of them.
pub(super) async fn dismiss_visitors(host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
    let mut own = session::open(host).await?;
    let all = "SELECT User, Host FROM mysql.user WHERE User LIKE 'coffer|_visitor|_%' ESCAPE '|'";
    for row in own.rows("list visitors", all).await? {
        if let [Some(user), Some(from)] = row.as_slice()
            && name.is_none_or(|wanted| wanted == user)
        {
            drop_account(&mut own, user, from).await?;
        }
    }
    Ok(())
}

/// Changes name, host and password of a user.
pub(super) async fn change(
    dialect: &dyn Dialect,
    host: &dyn EngineHost,
    change: &UserChange,
) -> Result<()> {
    let mut own = session::open(host).await?;
    refuse_reserved(&change.name)?;
    let from = host_or_any(change.host.as_deref());
    let (name, new_from) = (
        change.new_name.as_deref().unwrap_or(&change.name),
        change
            .new_host
            .as_deref()
            .map_or(from, |new| host_or_any(Some(new))),
    );
    if (name, new_from) != (change.name.as_str(), from) {
        names::check_user(dialect, name, Some(new_from))?;
        refuse_reserved(name)?;
        // A repeated change finds the user under its new name.
        let is_done = exists(&mut own, name, new_from).await?;
        if exists(&mut own, &change.name, from).await? || !is_done {
            require(&mut own, &change.name, from).await?;
            let (old, new) = (account(&change.name, from), account(name, new_from));
            own.run("rename the user", &format!("RENAME USER {old} TO {new}"))
                .await?;
        }
    }
    require(&mut own, name, new_from).await?;
    if let Some(password) = &change.new_password {
        let how = dialect.identified(password)?;
        let sql = format!("ALTER USER {} {how}", account(name, new_from));
        own.run("set the password", &sql).await?;
    }
    Ok(())
}

/// Drops a user if it is there, and ends its sessions.
pub(super) async fn drop(host: &dyn EngineHost, name: &str, from: Option<&str>) -> Result<()> {
    let mut own = session::open(host).await?;
    refuse_reserved(name)?;
    drop_account(&mut own, name, host_or_any(from)).await
}

async fn drop_account(own: &mut Session, name: &str, from: &str) -> Result<()> {
    let sql = format!("DROP USER IF EXISTS {}", account(name, from));
    own.run("drop the user", &sql).await?;
    end_sessions(own, name, from, None).await
}

/// Grants databases beside those the user has.
pub(super) async fn grant(
    host: &dyn EngineHost,
    name: &str,
    from: Option<&str>,
    databases: &[String],
) -> Result<()> {
    let mut own = session::open(host).await?;
    refuse_reserved(name)?;
    let from = host_or_any(from);
    require(&mut own, name, from).await?;
    grant_all(&mut own, &account(name, from), databases).await
}

async fn grant_all(own: &mut Session, who: &str, databases: &[String]) -> Result<()> {
    for database in databases {
        databases::require(own, database).await?;
        let on = quote(&pattern(database));
        let sql = format!("GRANT ALL PRIVILEGES ON {on}.* TO {who}");
        own.run("grant the database", &sql).await?;
    }
    Ok(())
}

/// Takes a database from a user and ends its sessions there.
pub(super) async fn revoke(
    host: &dyn EngineHost,
    name: &str,
    from: Option<&str>,
    database: &str,
) -> Result<()> {
    let mut own = session::open(host).await?;
    refuse_reserved(name)?;
    let from = host_or_any(from);
    require(&mut own, name, from).await?;
    databases::require(&mut own, database).await?;
    let known = format!(
        "SELECT Db FROM mysql.db WHERE User = {} AND Host = {}",
        text(name),
        text(from)
    );
    for row in own.rows("find the grants", &known).await? {
        let granted = row.into_iter().next().flatten().unwrap_or_default();
        if granted == pattern(database) || granted == database {
            let (on, who) = (quote(&granted), account(name, from));
            let sql = format!("REVOKE ALL PRIVILEGES ON {on}.* FROM {who}");
            own.run("revoke the database", &sql).await?;
        }
    }
    end_sessions(&mut own, name, from, Some(database)).await
}

/// Lets the superuser log in with this password.
pub(super) async fn enable_root(
    dialect: &dyn Dialect,
    host: &dyn EngineHost,
    password: &Secret,
) -> Result<()> {
    let mut own = session::open(host).await?;
    let who = account(ROOT, "%");
    let how = dialect.identified(password)?;
    let create = format!("CREATE USER IF NOT EXISTS {who} {how} ACCOUNT LOCK");
    let grant = format!("GRANT ALL PRIVILEGES ON *.* TO {who} WITH GRANT OPTION");
    own.run("create root", &create).await?;
    own.run("give root its rights", &grant).await?;
    for sql in dialect.restrict_root_sql() {
        own.run("bound root's rights", sql).await?;
    }
    let unlock = format!("ALTER USER {who} {how} ACCOUNT UNLOCK");
    own.run("enable root", &unlock).await
}

/// Locks the superuser and ends its sessions. The account stays: views and routines that it made
/// run with its rights.
pub(super) async fn disable_root(host: &dyn EngineHost) -> Result<()> {
    let mut own = session::open(host).await?;
    if exists(&mut own, ROOT, "%").await? {
        let sql = format!("ALTER USER {} ACCOUNT LOCK", account(ROOT, "%"));
        own.run("disable root", &sql).await?;
        end_sessions(&mut own, ROOT, "%", None).await?;
    }
    Ok(())
}

/// Ends what a user may have open: sessions of the name that come from where its host part allows.
/// The server does not tell which of several accounts of a name it took.
async fn end_sessions(
    own: &mut Session,
    name: &str,
    from: &str,
    database: Option<&str>,
) -> Result<()> {
    let mut sql = format!(
        "SELECT ID, HOST FROM information_schema.PROCESSLIST WHERE USER = {}",
        text(name)
    );
    if let Some(database) = database {
        sql.push_str(&format!(" AND DB = {}", text(database)));
    }
    for row in own.rows("find the user's sessions", &sql).await? {
        let [Some(id), Some(client)] = row.as_slice() else {
            continue;
        };
        if !names::is_from(client, from) {
            continue;
        }
        let Ok(id) = id.parse::<u64>() else { continue };
        match own.run("end a session", &format!("KILL {id}")).await {
            // It ended by itself.
            Err(EngineError::Failed { why, .. }) if why.ends_with("(1094)") => {}
            other => other?,
        }
    }
    Ok(())
}

async fn exists(own: &mut Session, name: &str, from: &str) -> Result<bool> {
    let sql = format!(
        "SELECT 1 FROM mysql.user WHERE User = {} AND Host = {}",
        text(name),
        text(from)
    );
    own.has("find the user", &sql).await
}

async fn require(own: &mut Session, name: &str, from: &str) -> Result<()> {
    if exists(own, name, from).await? {
        return Ok(());
    }
    Err(EngineError::Missing {
        kind: "user",
        name: format!("{name}@{from}"),
    })
}

fn refuse_reserved(name: &str) -> Result<()> {
    if names::is_reserved_user(name) {
        return Err(names::invalid("user name", name, "belongs to the engine"));
    }
    Ok(())
}

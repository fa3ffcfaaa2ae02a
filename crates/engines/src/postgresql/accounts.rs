//! Users, grants and root.
//!
//! Passwords are turned into SCRAM verifiers here, so the server never sees one. What a user owns
//! goes to the group of its database when the user is dropped, never to a superuser: a function
//! owned by one would run with its rights.

use coffer_core::secret::Secret;
use postgres_protocol::password::scram_sha_256;

use crate::error::{EngineError, Result};
use crate::postgresql::databases::{self, Found};
use crate::postgresql::names::{self, ROOT, VISITOR_PREFIX, invalid, quote};
use crate::postgresql::session::{self, Session};
use crate::runtime::{EngineHost, NewUser, UserChange};

/// Kinds of objects whose default rights are shared with a database's group.
const SHARED_KINDS: [&str; 5] = ["TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS"];

/// Creates users, or sets password and grants of those that are there.
pub(super) async fn create(host: &dyn EngineHost, users: &[NewUser]) -> Result<()> {
    let own = session::open_own(host).await?;
    for user in users {
        names::check("user name", &user.name)?;
        refuse_reserved(&user.name)?;
        put(host, &own, user).await?;
    }
    Ok(())
}

async fn put(host: &dyn EngineHost, own: &Session, user: &NewUser) -> Result<()> {
    let verb = if exists(own, &user.name).await? {
        "ALTER"
    } else {
        "CREATE"
    };
    let groups = groups(host, own, &user.databases).await?;
    let sql = format!(
        "{verb} ROLE {} LOGIN PASSWORD '{}'{}",
        quote(&user.name),
        verifier(&user.password),
        join_sql(&user.name, &groups)
    );
    own.run("create the user", &sql).await?;
    share_all(host, &user.name, &groups).await
}

/// Creates a user for a visit.
pub(super) async fn admit_visitor(host: &dyn EngineHost, user: &NewUser) -> Result<()> {
    names::check("user name", &user.name)?;
    if !user.name.starts_with(VISITOR_PREFIX) {
        return Err(invalid(
            "user name",
            &user.name,
            format!("has to begin with {VISITOR_PREFIX}"),
        ));
    }
    let own = session::open_own(host).await?;
    put(host, &own, user).await
}

/// Drops a visitor, or all of them.
pub(super) async fn dismiss_visitors(host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
    let own = session::open_own(host).await?;
    let all = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname::text, $1::text) \
               AND ($2::text IS NULL OR rolname = $2::text)";
    for row in own
        .rows("list visitors", all, &[&VISITOR_PREFIX, &name])
        .await?
    {
        let visitor: String = row.get(0);
        drop_role(host, &own, &visitor).await?;
    }
    Ok(())
}

/// Changes name and password of a user.
pub(super) async fn change(host: &dyn EngineHost, change: &UserChange) -> Result<()> {
    let own = session::open_own(host).await?;
    refuse_reserved(&change.name)?;
    let mut name = change.name.as_str();
    if let Some(new_name) = change.new_name.as_deref().filter(|new| *new != name) {
        names::check("user name", new_name)?;
        refuse_reserved(new_name)?;
        // A repeated change finds the user under its new name.
        if exists(&own, name).await? || !exists(&own, new_name).await? {
            let sql = format!("ALTER ROLE {} RENAME TO {}", quote(name), quote(new_name));
            require(&own, name).await?;
            own.run("rename the user", &sql).await?;
        }
        name = new_name;
    }
    require(&own, name).await?;
    if let Some(password) = &change.new_password {
        let sql = format!(
            "ALTER ROLE {} PASSWORD '{}'",
            quote(name),
            verifier(password)
        );
        own.run("set the password", &sql).await?;
    }
    Ok(())
}

/// Drops a user if it is there; what it owns stays with the databases.
pub(super) async fn drop(host: &dyn EngineHost, name: &str) -> Result<()> {
    let own = session::open_own(host).await?;
    refuse_reserved(name)?;
    if !exists(&own, name).await? {
        return Ok(());
    }
    drop_role(host, &own, name).await
}

async fn drop_role(host: &dyn EngineHost, own: &Session, name: &str) -> Result<()> {
    let user = quote(name);
    own.run("lock the user", &format!("ALTER ROLE {user} NOLOGIN"))
        .await?;
    end_sessions(own, name, None).await?;
    let owned = "SELECT d.datname::text FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
                 WHERE r.rolname = $1::text";
    for row in own
        .rows("find the user's databases", owned, &[&name])
        .await?
    {
        let database: String = row.get(0);
        let found = databases::get_with_group(host, own, &database).await?;
        let sql = format!(
            "ALTER DATABASE {} OWNER TO {}",
            quote(&database),
            quote(&found.group)
        );
        own.run("give the database to its group", &sql).await?;
    }
    drop_with_all(host, own, name).await
}

/// Drops a role, after what it owns went to the groups of the databases in which that is.
pub(super) async fn drop_with_all(host: &dyn EngineHost, own: &Session, name: &str) -> Result<()> {
    let used = "SELECT datname::text, datallowconn FROM pg_database \
                WHERE datname <> 'template0' AND oid IN (\
                SELECT s.dbid FROM pg_shdepend s JOIN pg_roles r ON s.refobjid = r.oid \
                WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = $1::text)";
    for row in own.rows("find what the user owns", used, &[&name]).await? {
        let (database, is_open): (String, bool) = (row.get(0), row.get(1));
        // Whoever owns a database may close it to everybody, also to who clears up in it.
        if !is_open {
            allow_connections(own, &database, true).await?;
        }
        let handed = hand_over(host, own, name, database.clone()).await;
        if !is_open {
            allow_connections(own, &database, false).await?;
        }
        handed?;
    }
    let user = quote(name);
    let sql = format!("DROP OWNED BY {user}; DROP ROLE {user}");
    own.run("drop the user", &sql).await
}

async fn allow_connections(own: &Session, database: &str, is_open: bool) -> Result<()> {
    let sql = format!(
        "ALTER DATABASE {} ALLOW_CONNECTIONS {is_open}",
        quote(database)
    );
    own.run("open a database that is closed", &sql).await
}

/// Gives what a user owns in one database to the database's group.
async fn hand_over(
    host: &dyn EngineHost,
    own: &Session,
    name: &str,
    database: String,
) -> Result<()> {
    let inside = session::open(host, &database).await?;
    let user = quote(name);
    let mut sql = format!("DROP OWNED BY {user}");
    if !names::is_reserved_database(&database) {
        let group = databases::get_with_group(host, own, &database).await?.group;
        sql = format!("REASSIGN OWNED BY {user} TO {}; {sql}", quote(&group));
    }
    inside.run("hand over what the user owns", &sql).await
}

/// Grants databases beside those the user has.
pub(super) async fn grant(host: &dyn EngineHost, name: &str, databases: &[String]) -> Result<()> {
    let own = session::open_own(host).await?;
    refuse_reserved(name)?;
    require(&own, name).await?;
    grant_all(host, &own, name, databases).await
}

async fn grant_all(
    host: &dyn EngineHost,
    own: &Session,
    name: &str,
    databases: &[String],
) -> Result<()> {
    let groups = groups(host, own, databases).await?;
    own.run("grant the databases", &join_sql(name, &groups))
        .await?;
    share_all(host, name, &groups).await
}

/// The databases with their groups.
async fn groups(host: &dyn EngineHost, own: &Session, databases: &[String]) -> Result<Vec<Found>> {
    let mut groups = Vec::with_capacity(databases.len());
    for database in databases {
        groups.push(databases::get_with_group(host, own, database).await?);
    }
    Ok(groups)
}

/// Statements that make a user a member of groups, each after a semicolon.
fn join_sql(name: &str, groups: &[Found]) -> String {
    let join = |found: &Found| format!("; GRANT {} TO {}", quote(&found.group), quote(name));
    groups.iter().map(join).collect()
}

/// Shares with the groups what the user will make.
async fn share_all(host: &dyn EngineHost, name: &str, groups: &[Found]) -> Result<()> {
    for found in groups {
        let inside = session::open(host, &found.name).await?;
        let sql = share_sql(name, &found.group, true);
        inside.run("share what the user makes", &sql).await?;
    }
    Ok(())
}

/// Default rights of the group on what the user makes; the schemas it makes included.
fn share_sql(name: &str, group: &str, is_granted: bool) -> String {
    let (user, group) = (quote(name), quote(group));
    SHARED_KINDS
        .map(|kind| {
            let change = if is_granted {
                format!("GRANT ALL ON {kind} TO {group}")
            } else {
                format!("REVOKE ALL ON {kind} FROM {group}")
            };
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {user} {change}")
        })
        .join("; ")
}

/// Takes a database from a user and ends its sessions there.
pub(super) async fn revoke(host: &dyn EngineHost, name: &str, database: &str) -> Result<()> {
    let own = session::open_own(host).await?;
    refuse_reserved(name)?;
    require(&own, name).await?;
    let found = databases::get_with_group(host, &own, database).await?;
    let (user, group) = (quote(name), quote(&found.group));
    let sql = format!(
        "REVOKE {group} FROM {user}; REVOKE ALL ON DATABASE {} FROM {user}",
        quote(database)
    );
    own.run("revoke the database", &sql).await?;
    let inside = session::open(host, database).await?;
    inside
        .run("share no more", &share_sql(name, &found.group, false))
        .await?;
    end_sessions(&own, name, Some(database)).await
}

/// Lets the superuser log in with this password.
pub(super) async fn enable_root(host: &dyn EngineHost, password: &Secret) -> Result<()> {
    let own = session::open_own(host).await?;
    databases::drop_spare(&own).await?;
    let verb = if exists(&own, ROOT).await? {
        "ALTER"
    } else {
        "CREATE"
    };
    let sql = format!(
        "{verb} ROLE {ROOT} SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN \
         PASSWORD '{}'",
        verifier(password)
    );
    own.run("enable root", &sql).await
}

/// Takes login and password from the superuser and ends its sessions.
pub(super) async fn disable_root(host: &dyn EngineHost) -> Result<()> {
    let own = session::open_own(host).await?;
    if exists(&own, ROOT).await? {
        own.run(
            "disable root",
            &format!("ALTER ROLE {ROOT} NOLOGIN PASSWORD NULL"),
        )
        .await?;
        end_sessions(&own, ROOT, None).await?;
    }
    Ok(())
}

async fn end_sessions(own: &Session, name: &str, database: Option<&str>) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE usename = $1::text AND ($2::text IS NULL OR datname = $2::text)";
    own.rows("end the user's sessions", sql, &[&name, &database])
        .await
        .map(|_| ())
}

async fn exists(own: &Session, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM pg_roles WHERE rolname = $1::text";
    Ok(!own.rows("find the user", sql, &[&name]).await?.is_empty())
}

async fn require(own: &Session, name: &str) -> Result<()> {
    if exists(own, name).await? {
        return Ok(());
    }
    Err(EngineError::Missing {
        kind: "user",
        name: name.to_owned(),
    })
}

fn refuse_reserved(name: &str) -> Result<()> {
    if names::is_reserved_user(name) {
        return Err(invalid(
            "user name",
            name,
            "belongs to the engine".to_owned(),
        ));
    }
    Ok(())
}

/// The verifier that PostgreSQL stores; letters, digits and `$:+/=-` only.
fn verifier(password: &Secret) -> String {
    scram_sha_256(password.expose().as_bytes())
}

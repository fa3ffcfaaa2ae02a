//! Databases and their group roles.
//!
//! Every database has a group role `coffer_db_OID` that owns it and holds every right in it.
//! Databases made by a tenant's superuser get one as soon as they are granted. All statements may
//! be repeated: a database left half made by a crash is completed by the next call.

use crate::error::{EngineError, Result};
use crate::postgresql::accounts;
use crate::postgresql::names::{self, GROUP_PREFIX, invalid, quote};
use crate::postgresql::session::{self, Session};
use crate::runtime::{DatabaseInfo, EngineHost};

/// A database as the catalog has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// Its group role.
    pub(super) group: String,
    owner: String,
}

/// Creates databases that are not there.
pub(super) async fn create(host: &dyn EngineHost, databases: &[DatabaseInfo]) -> Result<()> {
    let own = session::open_own(host).await?;
    for (name, character_set, collate) in databases {
        refuse_reserved(name)?;
        names::check("database name", name)?;
        let locale = names::parse_locale(character_set.as_deref(), collate.as_deref())?;
        if find(&own, name).await?.is_none()
            && (locale.is_some() || !rename_spare(&own, name).await?)
        {
            own.run("create the database", &create_sql(name, locale))
                .await?;
        }
        let found = get(&own, name).await?;
        if found.owner == names::COFFER {
            own_by_group(&own, &found).await?;
        }
    }
    Ok(())
}

/// Gives the name to the template's spare database, if it is there still and nobody is in it.
async fn rename_spare(own: &Session, name: &str) -> Result<bool> {
    if find(own, names::SPARE).await?.is_none() {
        return Ok(false);
    }
    let sql = format!("ALTER DATABASE {} RENAME TO {}", names::SPARE, quote(name));
    // Where it is refused a database is made as any other, and what is wrong is told by that.
    Ok(own.run("name the database", &sql).await.is_ok())
}

/// Takes the spare database away: whoever may change `template1` wants the next to be like that.
pub(super) async fn drop_spare(own: &Session) -> Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", names::SPARE);
    own.run("drop the spare database", &sql).await
}

fn create_sql(name: &str, locale: Option<names::Locale>) -> String {
    let mut sql = format!("CREATE DATABASE {}", quote(name));
    if let Some(names::Locale { encoding, locale }) = locale {
        let locale = locale.unwrap_or("C");
        sql.push_str(&format!(
            " TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE '{locale}'"
        ));
    }
    sql
}

/// Gives the database to its group and shuts everyone else out; one transaction.
async fn own_by_group(own: &Session, found: &Found) -> Result<()> {
    let make = group_sql(own, found).await?.unwrap_or_default();
    let (database, group) = (quote(&found.name), quote(&found.group));
    let sql = format!(
        "{make}REVOKE ALL ON DATABASE {database} FROM PUBLIC; \
         ALTER DATABASE {database} OWNER TO {group}"
    );
    own.run("give the database to its group", &sql).await
}

/// Makes the group role of a database if it is not there.
async fn ensure_group(own: &Session, found: &Found) -> Result<()> {
    match group_sql(own, found).await? {
        Some(make) => own.run("make the group", &make).await,
        None => Ok(()),
    }
}

/// The statement that makes the group role of a database, unless it is there.
async fn group_sql(own: &Session, found: &Found) -> Result<Option<String>> {
    let known = own
        .rows(
            "find the group",
            "SELECT 1 FROM pg_roles WHERE rolname = $1",
            &[&found.group],
        )
        .await?;
    let make = || format!("CREATE ROLE {} NOLOGIN NOSUPERUSER; ", quote(&found.group));
    Ok(known.is_empty().then(make))
}

/// The database, its group made and holding every right in it.
pub(super) async fn get_with_group(
    host: &dyn EngineHost,
    own: &Session,
    name: &str,
) -> Result<Found> {
    refuse_reserved(name)?;
    let found = get(own, name).await?;
    ensure_group(own, &found).await?;
    if found.owner != found.group {
        admit_group(host, &found).await?;
    }
    Ok(found)
}

/// In a database that a tenant's superuser made: rights on it and on what is in `public`.
async fn admit_group(host: &dyn EngineHost, found: &Found) -> Result<()> {
    let (database, group) = (quote(&found.name), quote(&found.group));
    let inside = session::open(host, &found.name).await?;
    inside
        .run(
            "admit the group",
            &format!("GRANT ALL ON DATABASE {database} TO {group}"),
        )
        .await?;
    let public = "SELECT 1 FROM pg_namespace WHERE nspname = 'public'";
    if inside
        .rows("find the schema", public, &[])
        .await?
        .is_empty()
    {
        return Ok(());
    }
    let sql = [
        "SCHEMA public",
        "ALL TABLES IN SCHEMA public",
        "ALL SEQUENCES IN SCHEMA public",
    ]
    .map(|object| format!("GRANT ALL ON {object} TO {group}"))
    .join("; ");
    inside.run("admit the group", &sql).await
}

/// Drops a database if it is there, and groups whose database is gone.
pub(super) async fn drop(host: &dyn EngineHost, name: &str) -> Result<()> {
    refuse_reserved(name)?;
    let own = session::open_own(host).await?;
    if find(&own, name).await?.is_some() {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", quote(name));
        own.run("drop the database", &sql).await?;
    }
    let orphans = own
        .rows(
            "find groups without database",
            "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^coffer_db_[0-9]+$' \
             AND NOT EXISTS (SELECT 1 FROM pg_database d \
             WHERE rolname = 'coffer_db_' || d.oid::text)",
            &[],
        )
        .await?;
    for row in orphans {
        // Somebody may have copied its rights into another database (pg_dump A | psql B).
        accounts::drop_with_all(host, &own, row.get(0)).await?;
    }
    Ok(())
}

/// The database of this name, if there is one.
pub(super) async fn find(own: &Session, name: &str) -> Result<Option<Found>> {
    let sql = "SELECT d.oid::text, r.rolname::text FROM pg_database d \
               JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1::text";
    let rows = own.rows("find the database", sql, &[&name]).await?;
    Ok(rows.first().map(|row| Found {
        name: name.to_owned(),
        group: format!("{GROUP_PREFIX}{}", row.get::<_, String>(0)),
        owner: row.get(1),
    }))
}

async fn get(own: &Session, name: &str) -> Result<Found> {
    let missing = || EngineError::Missing {
        kind: "database",
        name: name.to_owned(),
    };
    find(own, name).await?.ok_or_else(missing)
}

fn refuse_reserved(name: &str) -> Result<()> {
    if names::is_reserved_database(name) {
        return Err(invalid(
            "database name",
            name,
            "belongs to the engine".to_owned(),
        ));
    }
    Ok(())
}

//! Databases. All statements may be repeated.

use super::names::{self, pattern, quote, text};
use super::session::{self, Session};
use crate::error::{EngineError, Result};
use crate::runtime::{DatabaseInfo, EngineHost};

/// Creates databases that are not there.
pub(super) async fn create(host: &dyn EngineHost, databases: &[DatabaseInfo]) -> Result<()> {
    let mut own = session::open(host).await?;
    for (name, character_set, collate) in databases {
        refuse_reserved(name)?;
        names::check_database(name)?;
        names::check_locale(character_set.as_deref(), collate.as_deref())?;
        let mut sql = format!("CREATE DATABASE IF NOT EXISTS {}", quote(name));
        if let Some(set) = character_set {
            sql.push_str(&format!(" CHARACTER SET {set}"));
        }
        if let Some(collate) = collate {
            sql.push_str(&format!(" COLLATE {collate}"));
        }
        own.run("create the database", &sql).await?;
    }
    Ok(())
}

/// Drops a database if it is there. Its grants go as well: they would open another database of the
/// same name to those who had this one.
pub(super) async fn drop(host: &dyn EngineHost, name: &str) -> Result<()> {
    refuse_reserved(name)?;
    let mut own = session::open(host).await?;
    let sql = format!("DROP DATABASE IF EXISTS {}", quote(name));
    own.run("drop the database", &sql).await?;
    let granted = format!(
        "SELECT User, Host, Db FROM mysql.db WHERE Db IN ({}, {})",
        text(name),
        text(&pattern(name))
    );
    for row in own.rows("find grants of the database", &granted).await? {
        if let [Some(user), Some(from), Some(on)] = row.as_slice() {
            let (on, who) = (quote(on), names::account(user, from));
            let sql = format!("REVOKE ALL PRIVILEGES ON {on}.* FROM {who}");
            own.run("revoke the database", &sql).await?;
        }
    }
    Ok(())
}

/// Refuses a database that is not there.
pub(super) async fn require(own: &mut Session, name: &str) -> Result<()> {
    refuse_reserved(name)?;
    let sql = format!(
        "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
        text(name)
    );
    if own.has("find the database", &sql).await? {
        return Ok(());
    }
    Err(EngineError::Missing {
        kind: "database",
        name: name.to_owned(),
    })
}

fn refuse_reserved(name: &str) -> Result<()> {
    if names::is_reserved_database(name) {
        return Err(names::invalid(
            "database name",
            name,
            "belongs to the engine",
        ));
    }
    Ok(())
}

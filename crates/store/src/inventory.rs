//! What is inside an instance's engine, as it was last heard of: databases, users, grants.
//!
//! A report replaces all that is known of an instance; its counter tells whether a guest has news.
//! That root was ever enabled is kept with the instance and outlives reports.

use std::collections::BTreeSet;

use coffer_core::id::InstanceId;
use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Row, Tx, transact};
use crate::store::Store;

/// A logical database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDatabase {
    /// Its name.
    pub name: String,
    /// Its character set, as the engine names it.
    pub character_set: String,
    /// Its collation, as the engine names it.
    pub collate: String,
}

/// An account in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUser {
    /// Its name.
    pub name: String,
    /// Host it may come from; `%` means any.
    pub host: String,
    /// Databases it may use, sorted.
    pub databases: Vec<String>,
}

/// Everything of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInventory {
    /// The guest's change counter.
    pub counter: u64,
    /// All databases.
    pub databases: Vec<StoredDatabase>,
    /// All users.
    pub users: Vec<StoredUser>,
    /// Whether root may log in now.
    pub is_root_enabled: bool,
}

/// Sorts behind every host, for a marker that names none.
const LAST: &str = "\u{10FFFF}";

fn database(row: &Row) -> Result<StoredDatabase> {
    let mut row = Reader::new(row, "inventory_databases");
    Ok(StoredDatabase {
        name: row.text("name")?,
        character_set: row.text("character_set")?,
        collate: row.text("collate_name")?,
    })
}

/// Users from rows of one user and one grant each, sorted by user.
fn users(rows: &[Row]) -> Result<Vec<StoredUser>> {
    let mut users: Vec<StoredUser> = Vec::new();
    for row in rows {
        let mut row = Reader::new(row, "inventory_users");
        let (name, host) = (row.text("name")?, row.text("host")?);
        if users
            .last()
            .is_none_or(|last| (&last.name, &last.host) != (&name, &host))
        {
            users.push(StoredUser {
                name,
                host,
                databases: Vec::new(),
            });
        }
        let grant = row.opt_text("database_name")?;
        if let Some(last) = users.last_mut() {
            last.databases.extend(grant);
        }
    }
    Ok(users)
}

/// Whether the store may take an inventory of this counter: the instance is not deleted, and
/// nothing newer is known. Readers may overtake each other, the guest's counter never goes back.
async fn is_welcome(tx: &mut Tx, instance_id: InstanceId, counter: u64) -> Result<bool> {
    let sql = "SELECT i.id FROM instances i WHERE i.id = $1 AND i.is_deleted = 0
        AND NOT EXISTS (SELECT v.instance_id FROM inventories v
            WHERE v.instance_id = i.id AND v.counter > $2)";
    Ok(tx
        .fetch_optional(sql, args![instance_id, counter])
        .await?
        .is_some())
}

/// Replaces what is known of an instance's inside; ignored once it is deleted, and when a newer
/// inventory is known.
pub(crate) async fn put(
    tx: &mut Tx,
    instance_id: InstanceId,
    inventory: &StoredInventory,
    now: Timestamp,
) -> Result<()> {
    if !is_welcome(tx, instance_id, inventory.counter).await? {
        return Ok(());
    }
    let sql = "INSERT INTO inventories (instance_id, counter, is_root_enabled, updated_at)
        VALUES ($1, $2, $3, $4) ON CONFLICT (instance_id) DO UPDATE SET
        counter = excluded.counter, is_root_enabled = excluded.is_root_enabled,
        updated_at = excluded.updated_at";
    let (counter, is_root_enabled) = (inventory.counter, inventory.is_root_enabled);
    tx.execute(sql, args![instance_id, counter, is_root_enabled, now])
        .await?;
    let known = Inside::read(tx, instance_id).await?;
    let heard = Inside::of(inventory);
    for row in known.difference(&heard) {
        row.delete(tx, instance_id).await?;
    }
    for row in heard.difference(&known) {
        row.insert(tx, instance_id).await?;
    }
    if is_root_enabled {
        mark_root_enabled(tx, instance_id, now).await?;
    }
    Ok(())
}

/// A row of an inventory, as the tables have it. In their order a user comes before its grants, so
/// that it is inserted first; its deletion takes its grants along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum InsideRow {
    Database(String, String, String),
    User(String, String),
    Grant(String, String, String),
}

/// What an inventory has, row by row: an engine may have many thousands of which one changed, and
/// only that one is written.
struct Inside(BTreeSet<InsideRow>);

impl Inside {
    fn of(inventory: &StoredInventory) -> Self {
        let mut rows = BTreeSet::new();
        for one in inventory.databases.iter().cloned() {
            rows.insert(InsideRow::Database(
                one.name,
                one.character_set,
                one.collate,
            ));
        }
        for user in &inventory.users {
            let (name, host) = (&user.name, &user.host);
            rows.insert(InsideRow::User(name.clone(), host.clone()));
            for database in &user.databases {
                let grant = InsideRow::Grant(name.clone(), host.clone(), database.clone());
                rows.insert(grant);
            }
        }
        Self(rows)
    }

    async fn read(tx: &mut Tx, instance_id: InstanceId) -> Result<Self> {
        let mut rows = BTreeSet::new();
        let sql = "SELECT name, character_set, collate_name FROM inventory_databases
            WHERE instance_id = $1";
        for row in tx.fetch_all(sql, args![instance_id]).await? {
            let one = database(&row)?;
            rows.insert(InsideRow::Database(
                one.name,
                one.character_set,
                one.collate,
            ));
        }
        let sql = "SELECT name, host FROM inventory_users WHERE instance_id = $1";
        for row in tx.fetch_all(sql, args![instance_id]).await? {
            let mut row = Reader::new(&row, "inventory_users");
            rows.insert(InsideRow::User(row.text("name")?, row.text("host")?));
        }
        let sql = "SELECT name, host, database_name FROM inventory_grants WHERE instance_id = $1";
        for row in tx.fetch_all(sql, args![instance_id]).await? {
            let mut row = Reader::new(&row, "inventory_grants");
            let (name, host) = (row.text("name")?, row.text("host")?);
            rows.insert(InsideRow::Grant(name, host, row.text("database_name")?));
        }
        Ok(Self(rows))
    }

    fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a InsideRow> {
        self.0.difference(&other.0)
    }
}

impl InsideRow {
    async fn insert(&self, tx: &mut Tx, id: InstanceId) -> Result<()> {
        let (sql, args) = match self {
            Self::Database(name, character_set, collate) => (
                "INSERT INTO inventory_databases (instance_id, name, character_set, collate_name)
                    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                args![id, name, character_set, collate],
            ),
            Self::User(name, host) => (
                "INSERT INTO inventory_users (instance_id, name, host) VALUES ($1, $2, $3)",
                args![id, name, host],
            ),
            Self::Grant(name, host, database) => (
                "INSERT INTO inventory_grants (instance_id, name, host, database_name)
                    VALUES ($1, $2, $3, $4)",
                args![id, name, host, database],
            ),
        };
        tx.execute(sql, args).await.map(drop)
    }

    async fn delete(&self, tx: &mut Tx, id: InstanceId) -> Result<()> {
        let (sql, args) = match self {
            Self::Database(name, ..) => (
                "DELETE FROM inventory_databases WHERE instance_id = $1 AND name = $2",
                args![id, name],
            ),
            Self::User(name, host) => (
                "DELETE FROM inventory_users
                    WHERE instance_id = $1 AND name = $2 AND host = $3",
                args![id, name, host],
            ),
            Self::Grant(name, host, database) => (
                "DELETE FROM inventory_grants
                    WHERE instance_id = $1 AND name = $2 AND host = $3 AND database_name = $4",
                args![id, name, host, database],
            ),
        };
        tx.execute(sql, args).await.map(drop)
    }
}

/// Forgets what is known of an instance's inside.
pub(crate) async fn delete(tx: &mut Tx, instance_id: InstanceId) -> Result<()> {
    tx.execute(
        "DELETE FROM inventories WHERE instance_id = $1",
        args![instance_id],
    )
    .await
    .map(drop)
}

/// Remembers when root was enabled for the first time.
pub(crate) async fn mark_root_enabled(
    tx: &mut Tx,
    instance_id: InstanceId,
    at: Timestamp,
) -> Result<()> {
    let sql = "UPDATE instances SET root_enabled_at = $2
        WHERE id = $1 AND root_enabled_at IS NULL";
    tx.execute(sql, args![instance_id, at]).await.map(drop)
}

impl Store {
    /// Replaces what is known of an instance's inside; ignored once the instance is deleted, and
    /// when an inventory of a higher counter is known.
    pub async fn put_inventory(
        &self,
        instance_id: InstanceId,
        inventory: &StoredInventory,
        now: Timestamp,
    ) -> Result<()> {
        transact!(self, tx => put(&mut tx, instance_id, inventory, now).await)
    }

    /// The change counter of what is known; none before the first report.
    pub async fn find_inventory_counter(&self, instance_id: InstanceId) -> Result<Option<u64>> {
        let sql = "SELECT instance_id, counter FROM inventories WHERE instance_id = $1";
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        row.as_ref()
            .map(|row| Reader::at(row, "inventories", 1).number("counter"))
            .transpose()
    }

    /// A page of databases by name, after `marker`.
    pub async fn list_databases(
        &self,
        instance_id: InstanceId,
        marker: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredDatabase>> {
        let sql = "SELECT name, character_set, collate_name FROM inventory_databases
            WHERE instance_id = $1 AND name > $2 ORDER BY name LIMIT $3";
        let args = args![instance_id, marker.unwrap_or_default(), limit];
        self.db()
            .fetch_all(sql, args)
            .await?
            .iter()
            .map(database)
            .collect()
    }

    /// The database with this name.
    pub async fn find_database(
        &self,
        instance_id: InstanceId,
        name: &str,
    ) -> Result<Option<StoredDatabase>> {
        let sql = "SELECT name, character_set, collate_name FROM inventory_databases
            WHERE instance_id = $1 AND name = $2";
        let row = self
            .db()
            .fetch_optional(sql, args![instance_id, name])
            .await?;
        row.as_ref().map(database).transpose()
    }

    /// A page of users by name and host with their grants, after the marker `name@host` (or
    /// `name`: after all users of that name).
    pub async fn list_db_users(
        &self,
        instance_id: InstanceId,
        marker: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredUser>> {
        let sql = "SELECT u.name, u.host, g.database_name FROM
                (SELECT name, host FROM inventory_users
                    WHERE instance_id = $1 AND (name, host) > ($2, $3)
                    ORDER BY name, host LIMIT $4) u
            LEFT JOIN inventory_grants g
                ON g.instance_id = $1 AND g.name = u.name AND g.host = u.host
            ORDER BY u.name, u.host, g.database_name";
        let (name, host) = match marker {
            Some(marker) => marker.rsplit_once('@').unwrap_or((marker, LAST)),
            None => ("", ""),
        };
        users(
            &self
                .db()
                .fetch_all(sql, args![instance_id, name, host, limit])
                .await?,
        )
    }

    /// The user with this name and host.
    pub async fn find_db_user(
        &self,
        instance_id: InstanceId,
        name: &str,
        host: &str,
    ) -> Result<Option<StoredUser>> {
        let sql = "SELECT u.name, u.host, g.database_name FROM inventory_users u
            LEFT JOIN inventory_grants g ON g.instance_id = u.instance_id
                AND g.name = u.name AND g.host = u.host
            WHERE u.instance_id = $1 AND u.name = $2 AND u.host = $3 ORDER BY g.database_name";
        let rows = self
            .db()
            .fetch_all(sql, args![instance_id, name, host])
            .await?;
        Ok(users(&rows)?.pop())
    }

    /// When root was first enabled; none if it never was.
    pub async fn get_root_enabled(&self, instance_id: InstanceId) -> Result<Option<Timestamp>> {
        let sql = "SELECT id, root_enabled_at FROM instances WHERE id = $1";
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        let at = row.map(|row| Reader::at(&row, "instances", 1).opt_time("root_enabled_at"));
        Ok(at.transpose()?.flatten())
    }

    /// Remembers that root was enabled; the first time stays.
    pub async fn set_root_enabled(&self, instance_id: InstanceId, at: Timestamp) -> Result<()> {
        transact!(self, tx => mark_root_enabled(&mut tx, instance_id, at).await)
    }

    /// Whether root may log in now, as far as was heard.
    pub async fn is_root_enabled(&self, instance_id: InstanceId) -> Result<bool> {
        let sql = "SELECT instance_id, is_root_enabled FROM inventories WHERE instance_id = $1";
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        let is_enabled = row.map(|row| Reader::at(&row, "inventories", 1).bool("is_root_enabled"));
        Ok(is_enabled.transpose()?.unwrap_or_default())
    }
}

//! Availability zones that requests may name.

use coffer_core::flavor::Zone;
use coffer_core::name::Name;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Row, transact};
use crate::store::Store;

fn zone(row: &Row) -> Result<Zone> {
    let mut row = Reader::new(row, "zones");
    Ok(Zone {
        name: row.name("name")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Writes a new zone; `AlreadyExists` when its name is taken.
    pub async fn insert_zone(&self, zone: &Zone) -> Result<()> {
        let sql = "INSERT INTO zones (name, created_at) VALUES ($1, $2)";
        let done = self
            .db()
            .execute(sql, args![zone.name, zone.created_at])
            .await;
        done.map(drop)
            .map_err(|error| error.or_exists("zone with this name"))
    }

    /// All zones by name.
    pub async fn list_zones(&self) -> Result<Vec<Zone>> {
        let sql = "SELECT name, created_at FROM zones ORDER BY name";
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(zone)
            .collect()
    }

    /// The zone with this name.
    pub async fn find_zone(&self, name: &str) -> Result<Option<Zone>> {
        let sql = "SELECT name, created_at FROM zones WHERE name = $1";
        self.db()
            .fetch_optional(sql, args![name])
            .await?
            .as_ref()
            .map(zone)
            .transpose()
    }

    /// Gives a zone another name, which its instances and servers then carry; `NotFound` when it is
    /// not there, `AlreadyExists` when the name is taken.
    pub async fn rename_zone(&self, name: &str, new_name: &Name) -> Result<()> {
        transact!(self, tx => {
            let sql = "UPDATE zones SET name = $2 WHERE name = $1";
            let done = tx.execute(sql, args![name, new_name]).await;
            if done.map_err(|error| error.or_exists("zone with this name"))? == 0 {
                return Err(StoreError::NotFound { what: "zone" });
            }
            for sql in [
                "UPDATE instances SET zone = $2 WHERE zone = $1",
                "UPDATE servers SET zone = $2 WHERE zone = $1",
            ] {
                tx.execute(sql, args![name, new_name]).await?;
            }
            Ok(())
        })
    }

    /// Deletes a zone; `InUse` while an instance has it; succeeds when absent.
    pub async fn delete_zone(&self, name: &str) -> Result<()> {
        let used = "SELECT id FROM instances WHERE is_deleted = 0 AND zone = $1 LIMIT 1";
        self.delete_unless(used, "DELETE FROM zones WHERE name = $1", name, "zone")
            .await
    }

    /// Deletes the row that `key` names unless `used` finds a live instance with it.
    pub(crate) async fn delete_unless(
        &self,
        used: &'static str,
        delete: &'static str,
        key: &str,
        what: &'static str,
    ) -> Result<()> {
        transact!(self, tx => {
            if tx.fetch_optional(used, args![key]).await?.is_some() {
                return Err(StoreError::InUse { what });
            }
            tx.execute(delete, args![key]).await.map(drop)
        })
    }
}

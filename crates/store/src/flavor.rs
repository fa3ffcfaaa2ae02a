//! Flavors: what sizes are offered.

use coffer_core::flavor::Flavor;
use coffer_core::id::FlavorId;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::Row;
use crate::store::Store;

const EXISTS: &str = "flavor with this id or name";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, memory_mib, vcpus, disk_gib, created_at FROM flavors ",
            $rest
        )
    };
}

/// Statement that finds a flavor by its id.
pub(crate) const BY_ID: &str = select!("WHERE id = $1");

/// A flavor from a row of `BY_ID`.
pub(crate) fn flavor(row: &Row) -> Result<Flavor> {
    let mut row = Reader::new(row, "flavors");
    Ok(Flavor {
        id: row.parse("id")?,
        name: row.name("name")?,
        memory_mib: row.number("memory_mib")?,
        vcpus: row.number("vcpus")?,
        disk_gib: row.number("disk_gib")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Writes a new flavor; `AlreadyExists` when its id or name is taken.
    pub async fn insert_flavor(&self, flavor: &Flavor) -> Result<()> {
        let sql = "INSERT INTO flavors (id, name, memory_mib, vcpus, disk_gib, created_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let Flavor {
            id,
            name,
            memory_mib,
            vcpus,
            disk_gib,
            created_at,
        } = flavor;
        let args = args![id, name, memory_mib, vcpus, disk_gib, created_at];
        self.db()
            .execute(sql, args)
            .await
            .map(drop)
            .map_err(|error| error.or_exists(EXISTS))
    }

    /// All flavors by memory, CPUs and id.
    pub async fn list_flavors(&self) -> Result<Vec<Flavor>> {
        let sql = select!("ORDER BY memory_mib, vcpus, id");
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(flavor)
            .collect()
    }

    /// The flavor with this id.
    pub async fn find_flavor(&self, id: &FlavorId) -> Result<Option<Flavor>> {
        let row = self.db().fetch_optional(BY_ID, args![id]).await?;
        row.as_ref().map(flavor).transpose()
    }

    /// The flavor with this name.
    pub async fn find_flavor_by_name(&self, name: &str) -> Result<Option<Flavor>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE name = $1"), args![name])
            .await?;
        row.as_ref().map(flavor).transpose()
    }

    /// Overwrites a flavor; what was charged to quotas with the old one stays charged.
    pub async fn update_flavor(&self, flavor: &Flavor) -> Result<()> {
        let sql = "UPDATE flavors SET name = $2, memory_mib = $3, vcpus = $4, disk_gib = $5
            WHERE id = $1";
        let Flavor {
            id,
            name,
            memory_mib,
            vcpus,
            disk_gib,
            ..
        } = flavor;
        let args = args![id, name, memory_mib, vcpus, disk_gib];
        let changed = self
            .db()
            .execute(sql, args)
            .await
            .map_err(|e| e.or_exists(EXISTS))?;
        if changed == 0 {
            Err(StoreError::NotFound { what: "flavor" })
        } else {
            Ok(())
        }
    }

    /// Deletes a flavor; `InUse` while an instance has it; succeeds when absent.
    pub async fn delete_flavor(&self, id: &FlavorId) -> Result<()> {
        let used = "SELECT id FROM instances WHERE is_deleted = 0 AND flavor_id = $1 LIMIT 1";
        self.delete_unless(
            used,
            "DELETE FROM flavors WHERE id = $1",
            id.as_str(),
            "flavor",
        )
        .await
    }
}

//! Flavors: what sizes are offered.

use coffer_core::flavor::Flavor;
use coffer_core::id::FlavorId;
use coffer_core::name::Name;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Row, Tx, transact};
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

/// A change of a flavor; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlavorChange {
    /// New name.
    pub name: Option<Name>,
    /// New memory; unit: MiB.
    pub memory_mib: Option<u32>,
    /// New number of CPUs.
    pub vcpus: Option<u32>,
    /// New disk; unit: GiB.
    pub disk_gib: Option<u32>,
}

impl FlavorChange {
    /// Whether a size of this flavor becomes another.
    fn resizes(&self, flavor: &Flavor) -> bool {
        let differs = |new: Option<u32>, old: u32| new.is_some_and(|new| new != old);
        differs(self.memory_mib, flavor.memory_mib)
            || differs(self.vcpus, flavor.vcpus)
            || differs(self.disk_gib, flavor.disk_gib)
    }
}

/// Writes a flavor unless it is there. Where another has its name, it gets one of its own.
pub(crate) async fn insert_missing(tx: &mut Tx, flavor: &Flavor) -> Result<()> {
    let sql = "INSERT INTO flavors (id, name, memory_mib, vcpus, disk_gib, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let f = flavor;
    for name in [f.name.clone(), f.name.beside(f.id.as_str())] {
        let args = args![f.id, name, f.memory_mib, f.vcpus, f.disk_gib, f.created_at];
        tx.execute(sql, args).await?;
    }
    Ok(())
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

    /// Changes what is given, in one transaction: what others change meanwhile stays theirs.
    /// `InUse` when a size would become another while an instance has the flavor: its quota was
    /// charged with the old one, and it would get the new one at its next start.
    pub async fn update_flavor(&self, id: &FlavorId, change: &FlavorChange) -> Result<()> {
        let sql = "UPDATE flavors SET name = COALESCE($2, name),
                memory_mib = COALESCE($3, memory_mib), vcpus = COALESCE($4, vcpus),
                disk_gib = COALESCE($5, disk_gib)
            WHERE id = $1";
        let used = "SELECT id FROM instances WHERE is_deleted = 0 AND flavor_id = $1 LIMIT 1";
        let FlavorChange {
            name,
            memory_mib,
            vcpus,
            disk_gib,
        } = change;
        let done: Result<()> = transact!(self, tx => {
            let row = tx.fetch_optional(BY_ID, args![id]).await?;
            let row = row.ok_or(StoreError::NotFound { what: "flavor" })?;
            let is_resized = change.resizes(&flavor(&row)?);
            if is_resized && tx.fetch_optional(used, args![id]).await?.is_some() {
                return Err(StoreError::InUse { what: "flavor" });
            }
            let args = args![id, name, memory_mib, vcpus, disk_gib];
            tx.execute(sql, args).await.map(drop)
        });
        done.map_err(|error| error.or_exists(EXISTS))
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

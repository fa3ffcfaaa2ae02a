//! Volume types: what kinds of volumes are offered.

use coffer_core::flavor::VolumeType;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::Row;
use crate::store::Store;

fn volume_type(row: &Row) -> Result<VolumeType> {
    let mut row = Reader::new(row, "volume_types");
    Ok(VolumeType {
        name: row.name("name")?,
        description: row.text("description")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Writes a new volume type; `AlreadyExists` when its name is taken.
    pub async fn insert_volume_type(&self, volume_type: &VolumeType) -> Result<()> {
        let sql = "INSERT INTO volume_types (name, description, created_at) VALUES ($1, $2, $3)";
        let VolumeType {
            name,
            description,
            created_at,
        } = volume_type;
        let done = self
            .db()
            .execute(sql, args![name, description, created_at])
            .await;
        done.map(drop)
            .map_err(|error| error.or_exists("volume type with this name"))
    }

    /// All volume types by name.
    pub async fn list_volume_types(&self) -> Result<Vec<VolumeType>> {
        let sql = "SELECT name, description, created_at FROM volume_types ORDER BY name";
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(volume_type)
            .collect()
    }

    /// The volume type with this name.
    pub async fn find_volume_type(&self, name: &str) -> Result<Option<VolumeType>> {
        let sql = "SELECT name, description, created_at FROM volume_types WHERE name = $1";
        let row = self.db().fetch_optional(sql, args![name]).await?;
        row.as_ref().map(volume_type).transpose()
    }

    /// Overwrites a volume type's description.
    pub async fn update_volume_type(&self, volume_type: &VolumeType) -> Result<()> {
        let sql = "UPDATE volume_types SET description = $2 WHERE name = $1";
        let args = args![volume_type.name, volume_type.description];
        match self.db().execute(sql, args).await? {
            0 => Err(StoreError::NotFound {
                what: "volume type",
            }),
            _ => Ok(()),
        }
    }

    /// Deletes a volume type; `InUse` while an instance has it; succeeds when absent.
    pub async fn delete_volume_type(&self, name: &str) -> Result<()> {
        let used = "SELECT id FROM instances WHERE is_deleted = 0 AND volume_type = $1 LIMIT 1";
        let delete = "DELETE FROM volume_types WHERE name = $1";
        self.delete_unless(used, delete, name, "volume type").await
    }
}

//! Volume types: what kinds of volumes are offered, and how fast they may be read and written.

use coffer_core::flavor::VolumeType;
use coffer_core::units::{BytesPerSecond, IoLimits, Iops};

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Arg, Row, Tx};
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, description, read_iops_sec, write_iops_sec, read_bytes_sec, \
             write_bytes_sec, created_at FROM volume_types ",
            $rest
        )
    };
}

macro_rules! insert {
    ($rest:literal) => {
        concat!(
            "INSERT INTO volume_types (name, description, read_iops_sec, write_iops_sec, \
             read_bytes_sec, write_bytes_sec, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            $rest
        )
    };
}

/// Statement that finds a volume type by its name.
pub(crate) const BY_NAME: &str = select!("WHERE name = $1");

/// A volume type from a row of `BY_NAME`.
pub(crate) fn volume_type(row: &Row) -> Result<VolumeType> {
    let mut row = Reader::new(row, "volume_types");
    Ok(VolumeType {
        name: row.name("name")?,
        description: row.text("description")?,
        io: IoLimits {
            read_iops_sec: row.opt_rate("read_iops_sec", Iops::parse)?,
            write_iops_sec: row.opt_rate("write_iops_sec", Iops::parse)?,
            read_bytes_sec: row.opt_rate("read_bytes_sec", BytesPerSecond::parse)?,
            write_bytes_sec: row.opt_rate("write_bytes_sec", BytesPerSecond::parse)?,
        },
        created_at: row.time("created_at")?,
    })
}

/// Writes a volume type unless one with its name is there.
pub(crate) async fn insert_missing(tx: &mut Tx, volume_type: &VolumeType) -> Result<()> {
    let sql = insert!(" ON CONFLICT DO NOTHING");
    tx.execute(sql, values(volume_type)).await.map(drop)
}

/// Parameters of `insert!`.
fn values(volume_type: &VolumeType) -> Vec<Arg> {
    let VolumeType {
        name,
        description,
        io,
        created_at,
    } = volume_type;
    args![
        name,
        description,
        io.read_iops_sec,
        io.write_iops_sec,
        io.read_bytes_sec,
        io.write_bytes_sec,
        created_at
    ]
}

/// A change of a volume type: what is `None` stays, and a limit of `Some(None)` is lifted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeTypeChange {
    /// New description.
    pub description: Option<String>,
    /// New limit on read operations.
    pub read_iops_sec: Option<Option<Iops>>,
    /// New limit on write operations.
    pub write_iops_sec: Option<Option<Iops>>,
    /// New limit on bytes read.
    pub read_bytes_sec: Option<Option<BytesPerSecond>>,
    /// New limit on bytes written.
    pub write_bytes_sec: Option<Option<BytesPerSecond>>,
}

/// A changed limit as a parameter: NULL keeps what is there, 0, which no limit is, lifts it.
fn changed<T>(limit: Option<Option<T>>, get: fn(T) -> u64) -> Option<u64> {
    limit.map(|limit| limit.map_or(0, get))
}

impl Store {
    /// Writes a new volume type; `AlreadyExists` when its name is taken.
    pub async fn insert_volume_type(&self, volume_type: &VolumeType) -> Result<()> {
        let done = self.db().execute(insert!(""), values(volume_type)).await;
        done.map(drop)
            .map_err(|error| error.or_exists("volume type with this name"))
    }

    /// All volume types by name.
    pub async fn list_volume_types(&self) -> Result<Vec<VolumeType>> {
        self.db()
            .fetch_all(select!("ORDER BY name"), args![])
            .await?
            .iter()
            .map(volume_type)
            .collect()
    }

    /// The volume type with this name.
    pub async fn find_volume_type(&self, name: &str) -> Result<Option<VolumeType>> {
        let row = self.db().fetch_optional(BY_NAME, args![name]).await?;
        row.as_ref().map(volume_type).transpose()
    }

    /// Changes what is given of the volume type with this name, in one statement: what others
    /// change meanwhile stays theirs. `NotFound` when there is none.
    pub async fn update_volume_type(&self, name: &str, change: &VolumeTypeChange) -> Result<()> {
        let sql = "UPDATE volume_types SET description = COALESCE($2, description),
                read_iops_sec = NULLIF(COALESCE($3, read_iops_sec), 0),
                write_iops_sec = NULLIF(COALESCE($4, write_iops_sec), 0),
                read_bytes_sec = NULLIF(COALESCE($5, read_bytes_sec), 0),
                write_bytes_sec = NULLIF(COALESCE($6, write_bytes_sec), 0)
            WHERE name = $1";
        let args = args![
            name,
            change.description,
            changed(change.read_iops_sec, Iops::get),
            changed(change.write_iops_sec, Iops::get),
            changed(change.read_bytes_sec, BytesPerSecond::get),
            changed(change.write_bytes_sec, BytesPerSecond::get)
        ];
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

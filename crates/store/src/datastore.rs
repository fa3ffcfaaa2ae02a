//! Datastores and their versions: what engines are offered.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::id::{DatastoreId, DatastoreVersionId};

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::Row;
use crate::store::Store;

macro_rules! select_datastore {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, default_version_id, created_at FROM datastores ",
            $rest
        )
    };
}

macro_rules! select_version {
    ($rest:literal) => {
        concat!(
            "SELECT id, datastore_id, name, number, manager, is_active, image, root, created_at \
             FROM datastore_versions ",
            $rest
        )
    };
}

/// Statement that finds a datastore by its id.
pub(crate) const DATASTORE_BY_ID: &str = select_datastore!("WHERE id = $1");
/// Statement that finds a datastore version by its id.
pub(crate) const VERSION_BY_ID: &str = select_version!("WHERE id = $1");

/// A datastore from a row of `DATASTORE_BY_ID`.
pub(crate) fn datastore(row: &Row) -> Result<Datastore> {
    let mut row = Reader::new(row, "datastores");
    Ok(Datastore {
        id: row.parse("id")?,
        name: row.name("name")?,
        default_version_id: row.opt_parse("default_version_id")?,
        created_at: row.time("created_at")?,
    })
}

/// A datastore version from a row of `VERSION_BY_ID`.
pub(crate) fn version(row: &Row) -> Result<DatastoreVersion> {
    let mut row = Reader::new(row, "datastore_versions");
    Ok(DatastoreVersion {
        id: row.parse("id")?,
        datastore_id: row.parse("datastore_id")?,
        name: row.name("name")?,
        number: row.text("number")?,
        manager: row.text("manager")?,
        is_active: row.bool("is_active")?,
        image: row.text("image")?,
        root: row.opt_text("root")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Writes a datastore, or overwrites its name; an existing default version is kept.
    pub async fn upsert_datastore(&self, datastore: &Datastore) -> Result<()> {
        let sql = "INSERT INTO datastores (id, name, default_version_id, created_at)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name";
        let Datastore {
            id,
            name,
            default_version_id,
            created_at,
        } = datastore;
        let done = self
            .db()
            .execute(sql, args![id, name, default_version_id, created_at])
            .await;
        done.map(drop)
            .map_err(|error| error.or_exists("datastore with this name"))
    }

    /// Writes a datastore version, or overwrites all but its root.
    pub async fn upsert_datastore_version(&self, version: &DatastoreVersion) -> Result<()> {
        let sql = "INSERT INTO datastore_versions
                (id, datastore_id, name, number, manager, is_active, image, root, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name, number = excluded.number,
                manager = excluded.manager, is_active = excluded.is_active,
                image = excluded.image";
        let v = version;
        let args = args![
            v.id,
            v.datastore_id,
            v.name,
            v.number,
            v.manager,
            v.is_active,
            v.image,
            v.root,
            v.created_at
        ];
        self.db()
            .execute(sql, args)
            .await
            .map(drop)
            .map_err(|error| {
                error
                    .or_exists("datastore version with this name")
                    .or_missing("datastore or root")
            })
    }

    /// All datastores by name.
    pub async fn list_datastores(&self) -> Result<Vec<Datastore>> {
        let sql = select_datastore!("ORDER BY name");
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(datastore)
            .collect()
    }

    /// All versions of a datastore by name.
    pub async fn list_datastore_versions(&self, id: DatastoreId) -> Result<Vec<DatastoreVersion>> {
        let sql = select_version!("WHERE datastore_id = $1 ORDER BY name");
        self.db()
            .fetch_all(sql, args![id])
            .await?
            .iter()
            .map(version)
            .collect()
    }

    /// The datastore with this id.
    pub async fn find_datastore(&self, id: DatastoreId) -> Result<Option<Datastore>> {
        let row = self.db().fetch_optional(DATASTORE_BY_ID, args![id]).await?;
        row.as_ref().map(datastore).transpose()
    }

    /// The datastore with this name.
    pub async fn find_datastore_by_name(&self, name: &str) -> Result<Option<Datastore>> {
        let sql = select_datastore!("WHERE name = $1");
        self.db()
            .fetch_optional(sql, args![name])
            .await?
            .as_ref()
            .map(datastore)
            .transpose()
    }

    /// The version with this id.
    pub async fn find_datastore_version(
        &self,
        id: DatastoreVersionId,
    ) -> Result<Option<DatastoreVersion>> {
        let row = self.db().fetch_optional(VERSION_BY_ID, args![id]).await?;
        row.as_ref().map(version).transpose()
    }

    /// The version of a datastore with this name.
    pub async fn find_datastore_version_by_name(
        &self,
        id: DatastoreId,
        name: &str,
    ) -> Result<Option<DatastoreVersion>> {
        let sql = select_version!("WHERE datastore_id = $1 AND name = $2");
        self.db()
            .fetch_optional(sql, args![id, name])
            .await?
            .as_ref()
            .map(version)
            .transpose()
    }

    /// Sets the version used when a request names none; `NotFound` if it is none of the
    /// datastore's.
    pub async fn set_default_version(
        &self,
        id: DatastoreId,
        version: DatastoreVersionId,
    ) -> Result<()> {
        let sql = "UPDATE datastores SET default_version_id = $2 WHERE id = $1 AND EXISTS
                (SELECT id FROM datastore_versions WHERE id = $2 AND datastore_id = $1)";
        match self.db().execute(sql, args![id, version]).await? {
            0 => Err(StoreError::NotFound {
                what: "datastore version",
            }),
            _ => Ok(()),
        }
    }

    /// Sets the engine root that new instances of a version get; `NotFound` for an unknown
    /// version or root.
    pub async fn set_version_root(
        &self,
        id: DatastoreVersionId,
        checksum: Option<&str>,
    ) -> Result<()> {
        let sql = "UPDATE datastore_versions SET root = $2 WHERE id = $1";
        let done = self.db().execute(sql, args![id, checksum]).await;
        match done.map_err(|error| error.or_missing("engine root"))? {
            0 => Err(StoreError::NotFound {
                what: "datastore version",
            }),
            _ => Ok(()),
        }
    }
}

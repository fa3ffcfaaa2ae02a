//! Engine roots that were built, and the templates made from them.

use coffer_core::datastore::EngineRoot;
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Row, transact};
use crate::store::Store;

/// An initialised data directory that volumes are cloned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Checksum of the root it was initialised with.
    pub root: String,
    /// Volume format it is for, as the provider names it.
    pub format: String,
    /// Provider that keeps it.
    pub provider: String,
    /// The provider's own id.
    pub provider_ref: String,
    /// When it was made.
    pub created_at: Timestamp,
}

fn root(row: &Row) -> Result<EngineRoot> {
    let mut row = Reader::new(row, "roots");
    Ok(EngineRoot {
        checksum: row.text("checksum")?,
        image: row.text("image")?,
        manifest: row.text("manifest")?,
        built_at: row.time("built_at")?,
    })
}

fn template(row: &Row) -> Result<Template> {
    let mut row = Reader::new(row, "templates");
    Ok(Template {
        root: row.text("root")?,
        format: row.text("format")?,
        provider: row.text("provider")?,
        provider_ref: row.text("provider_ref")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Writes an engine root; writing it again changes nothing.
    pub async fn insert_root(&self, root: &EngineRoot) -> Result<()> {
        let sql = "INSERT INTO roots (checksum, image, manifest, built_at)
            VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let EngineRoot {
            checksum,
            image,
            manifest,
            built_at,
        } = root;
        self.db()
            .execute(sql, args![checksum, image, manifest, built_at])
            .await
            .map(drop)
    }

    /// All engine roots, newest first.
    pub async fn list_roots(&self) -> Result<Vec<EngineRoot>> {
        let sql = "SELECT checksum, image, manifest, built_at FROM roots
            ORDER BY built_at DESC, checksum";
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(root)
            .collect()
    }

    /// The root with this checksum.
    pub async fn find_root(&self, checksum: &str) -> Result<Option<EngineRoot>> {
        let sql = "SELECT checksum, image, manifest, built_at FROM roots WHERE checksum = $1";
        self.db()
            .fetch_optional(sql, args![checksum])
            .await?
            .as_ref()
            .map(root)
            .transpose()
    }

    /// Deletes a root and its templates; `InUse` while a version or a server uses it; succeeds
    /// when absent.
    pub async fn delete_root(&self, checksum: &str) -> Result<()> {
        let in_use = "engine root";
        let mounted = "SELECT server_id FROM server_roots WHERE checksum = $1 LIMIT 1";
        let done: Result<()> = transact!(self, tx => {
            if tx.fetch_optional(mounted, args![checksum]).await?.is_some() {
                return Err(StoreError::InUse { what: in_use });
            }
            tx.execute("DELETE FROM roots WHERE checksum = $1", args![checksum]).await.map(drop)
        });
        done.map_err(|error| error.or_in_use(in_use))
    }

    /// Writes a template, or overwrites where the provider keeps it; `NotFound` for an unknown
    /// root.
    pub async fn put_template(&self, template: &Template) -> Result<()> {
        let sql = "INSERT INTO templates (root, format, provider, provider_ref, created_at)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (root, format, provider) DO UPDATE
                SET provider_ref = excluded.provider_ref, created_at = excluded.created_at";
        let Template {
            root,
            format,
            provider,
            provider_ref,
            created_at,
        } = template;
        let args = args![root, format, provider, provider_ref, created_at];
        let done = self.db().execute(sql, args).await;
        done.map(drop)
            .map_err(|error| error.or_missing("engine root"))
    }

    /// All templates of a root.
    pub async fn list_templates(&self, root: &str) -> Result<Vec<Template>> {
        let sql = "SELECT root, format, provider, provider_ref, created_at FROM templates
            WHERE root = $1 ORDER BY format, provider";
        self.db()
            .fetch_all(sql, args![root])
            .await?
            .iter()
            .map(template)
            .collect()
    }

    /// Forgets a template; succeeds when absent.
    pub async fn delete_template(&self, root: &str, format: &str, provider: &str) -> Result<()> {
        let sql = "DELETE FROM templates WHERE root = $1 AND format = $2 AND provider = $3";
        self.db()
            .execute(sql, args![root, format, provider])
            .await
            .map(drop)
    }
}

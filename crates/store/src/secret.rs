//! Ciphertexts and the keys they name. Nothing here can decrypt, and a destroyed key is
//! overwritten, so that what it protected is gone with it.

use std::fmt;

use coffer_core::id::{InstanceId, ProjectKeyId, SecretId, TenantId};
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Arg, Row, Tx, transact};
use crate::store::Store;

/// A project's key, wrapped by the master key.
#[derive(Clone, PartialEq, Eq)]
pub struct ProjectKey {
    /// Its id; every ciphertext names it.
    pub id: ProjectKeyId,
    /// Project it protects.
    pub tenant_id: TenantId,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its id.
    pub id: SecretId,
    /// Key it is encrypted under.
    pub key_id: ProjectKeyId,
    /// Project it belongs to.
    pub tenant_id: TenantId,
    /// Instance it belongs to; it is erased with it.
    pub instance_id: Option<InstanceId>,
    /// What it is for (`root-password`, `users`).
    pub purpose: String,
    /// The ciphertext with its nonce.
    pub ciphertext: Vec<u8>,
    /// When it was written.
    pub created_at: Timestamp,
}

impl fmt::Debug for ProjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectKey")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecret")
            .field("id", &self.id)
            .field("key_id", &self.key_id)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

macro_rules! select_key {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant_id, wrapped, created_at FROM project_keys \
             WHERE destroyed_at IS NULL AND ",
            $rest
        )
    };
}

macro_rules! select_secret {
    ($rest:literal) => {
        concat!(
            "SELECT id, key_id, tenant_id, instance_id, purpose, ciphertext, created_at \
             FROM secrets ",
            $rest
        )
    };
}

const KEY_OF_TENANT: &str = select_key!("tenant_id = $1 AND retired_at IS NULL");
/// Under a key that can be read only: one that was destroyed meanwhile would take it along.
const PUT_SECRET: &str = "INSERT INTO secrets
        (id, key_id, tenant_id, instance_id, purpose, ciphertext, created_at)
    SELECT $1, id, $3, $4, $5, $6, $7 FROM project_keys WHERE id = $2 AND destroyed_at IS NULL
    ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id, purpose = excluded.purpose,
        ciphertext = excluded.ciphertext, created_at = excluded.created_at";

fn project_key(row: &Row) -> Result<ProjectKey> {
    let mut row = Reader::new(row, "project_keys");
    Ok(ProjectKey {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        wrapped: row.blob("wrapped")?,
        created_at: row.time("created_at")?,
    })
}

fn secret(row: &Row) -> Result<StoredSecret> {
    let mut row = Reader::new(row, "secrets");
    Ok(StoredSecret {
        id: row.parse("id")?,
        key_id: row.parse("key_id")?,
        tenant_id: row.parse("tenant_id")?,
        instance_id: row.opt_parse("instance_id")?,
        purpose: row.text("purpose")?,
        ciphertext: row.blob("ciphertext")?,
        created_at: row.time("created_at")?,
    })
}

fn values(secret: &StoredSecret) -> Vec<Arg> {
    let s = secret;
    args![
        s.id,
        s.key_id,
        s.tenant_id,
        s.instance_id,
        s.purpose,
        s.ciphertext,
        s.created_at
    ]
}

/// Writes or replaces a ciphertext.
pub(crate) async fn put(tx: &mut Tx, secret: &StoredSecret) -> Result<()> {
    written(tx.execute(PUT_SECRET, values(secret)).await?)
}

const fn written(rows: u64) -> Result<()> {
    match rows {
        0 => Err(StoreError::NotFound {
            what: "project key",
        }),
        _ => Ok(()),
    }
}

/// Erases a ciphertext.
pub(crate) async fn erase(tx: &mut Tx, id: SecretId) -> Result<()> {
    tx.execute("DELETE FROM secrets WHERE id = $1", args![id])
        .await
        .map(drop)
}

impl Store {
    /// The project's key; writes `candidate` as it when there is none. Atomic: the first wins.
    pub async fn ensure_project_key(&self, candidate: &ProjectKey) -> Result<ProjectKey> {
        if let Some(key) = self.find_project_key(&candidate.tenant_id).await? {
            return Ok(key);
        }
        let sql = "INSERT INTO project_keys (id, tenant_id, wrapped, created_at)
            VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let ProjectKey {
            id,
            tenant_id,
            wrapped,
            created_at,
        } = candidate;
        self.db()
            .execute(sql, args![id, tenant_id, wrapped, created_at])
            .await?;
        let stored = self.find_project_key(tenant_id).await?;
        stored.ok_or(StoreError::AlreadyExists {
            what: "project key with this id",
        })
    }

    /// The project's key in use.
    pub async fn find_project_key(&self, tenant_id: &TenantId) -> Result<Option<ProjectKey>> {
        let row = self
            .db()
            .fetch_optional(KEY_OF_TENANT, args![tenant_id])
            .await?;
        row.as_ref().map(project_key).transpose()
    }

    /// The key with this id, unless it was destroyed.
    pub async fn find_project_key_by_id(&self, id: ProjectKeyId) -> Result<Option<ProjectKey>> {
        let row = self
            .db()
            .fetch_optional(select_key!("id = $1"), args![id])
            .await?;
        row.as_ref().map(project_key).transpose()
    }

    /// Overwrites a wrapped key; nothing it protected can be read afterwards. Succeeds when it is
    /// destroyed already.
    pub async fn destroy_project_key(&self, id: ProjectKeyId, now: Timestamp) -> Result<()> {
        let sql = "UPDATE project_keys SET wrapped = $2, destroyed_at = $3
            WHERE id = $1 AND destroyed_at IS NULL";
        self.db()
            .execute(sql, args![id, Vec::<u8>::new(), now])
            .await
            .map(drop)
    }

    /// Writes a ciphertext, or replaces it; `NotFound` when its key is unknown.
    pub async fn put_secret(&self, secret: &StoredSecret) -> Result<()> {
        written(self.db().execute(PUT_SECRET, values(secret)).await?)
    }

    /// The ciphertext with this id.
    pub async fn find_secret(&self, id: SecretId) -> Result<Option<StoredSecret>> {
        let row = self
            .db()
            .fetch_optional(select_secret!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(secret).transpose()
    }

    /// The newest ciphertext of an instance for a purpose.
    pub async fn find_instance_secret(
        &self,
        instance_id: InstanceId,
        purpose: &str,
    ) -> Result<Option<StoredSecret>> {
        let sql = select_secret!(
            "WHERE instance_id = $1 AND purpose = $2 ORDER BY created_at DESC, id DESC LIMIT 1"
        );
        let row = self
            .db()
            .fetch_optional(sql, args![instance_id, purpose])
            .await?;
        row.as_ref().map(secret).transpose()
    }

    /// Erases a ciphertext; succeeds when absent.
    pub async fn erase_secret(&self, id: SecretId) -> Result<()> {
        self.db()
            .execute("DELETE FROM secrets WHERE id = $1", args![id])
            .await
            .map(drop)
    }

    /// Every key that was not destroyed, those in use and those that were retired.
    pub async fn list_project_keys(&self) -> Result<Vec<ProjectKey>> {
        let sql = select_key!("1 = 1 ORDER BY id");
        let rows = self.db().fetch_all(sql, args![]).await?;
        rows.iter().map(project_key).collect()
    }

    /// The retired keys of a project that were not destroyed yet.
    pub async fn list_retired_keys(&self, tenant_id: &TenantId) -> Result<Vec<ProjectKey>> {
        let sql = select_key!("tenant_id = $1 AND retired_at IS NOT NULL ORDER BY id");
        let rows = self.db().fetch_all(sql, args![tenant_id]).await?;
        rows.iter().map(project_key).collect()
    }

    /// Replaces the wrapped form of a key; `false` when it is not the one that was read.
    pub async fn rewrap_project_key(
        &self,
        id: ProjectKeyId,
        from: &[u8],
        to: &[u8],
    ) -> Result<bool> {
        let sql = "UPDATE project_keys SET wrapped = $3
            WHERE id = $1 AND wrapped = $2 AND destroyed_at IS NULL";
        let args = args![id, from.to_vec(), to.to_vec()];
        Ok(self.db().execute(sql, args).await? > 0)
    }

    /// Puts a new key in the place of the project's key in use, which is retired: it still opens
    /// what it sealed. `Stale` when another one is in use by now.
    pub async fn replace_project_key(
        &self,
        from: ProjectKeyId,
        to: &ProjectKey,
        now: Timestamp,
    ) -> Result<()> {
        let retire = "UPDATE project_keys SET retired_at = $2
            WHERE id = $1 AND retired_at IS NULL AND destroyed_at IS NULL";
        let insert = "INSERT INTO project_keys (id, tenant_id, wrapped, created_at)
            VALUES ($1, $2, $3, $4)";
        transact!(self, tx => {
            if tx.execute(retire, args![from, now]).await? == 0 {
                return Err(StoreError::Stale { what: "project key" });
            }
            let args = args![to.id, to.tenant_id, to.wrapped, to.created_at];
            tx.execute(insert, args).await.map(drop)
        })
    }

    /// Some of what is sealed under a key, at most `limit`.
    pub async fn list_sealed_under(
        &self,
        key_id: ProjectKeyId,
        limit: u32,
    ) -> Result<Vec<StoredSecret>> {
        let sql = select_secret!("WHERE key_id = $1 ORDER BY id LIMIT $2");
        let rows = self.db().fetch_all(sql, args![key_id, limit]).await?;
        rows.iter().map(secret).collect()
    }

    /// Replaces a ciphertext by one of the same under another key; `false` when it is not the one
    /// that was read.
    pub async fn reseal_secret(&self, from: &StoredSecret, to: &StoredSecret) -> Result<bool> {
        let sql = "UPDATE secrets SET key_id = $3, ciphertext = $4
            WHERE id = $1 AND key_id = $2 AND ciphertext = $5";
        let args = args![
            from.id,
            from.key_id,
            to.key_id,
            to.ciphertext,
            from.ciphertext
        ];
        Ok(self.db().execute(sql, args).await? > 0)
    }

    /// Destroys a retired key under which nothing is sealed any more; `false` while something is.
    pub async fn destroy_retired_key(&self, id: ProjectKeyId, now: Timestamp) -> Result<bool> {
        let sql = "UPDATE project_keys SET wrapped = $2, destroyed_at = $3
            WHERE id = $1 AND retired_at IS NOT NULL AND destroyed_at IS NULL
                AND NOT EXISTS (SELECT s.id FROM secrets s WHERE s.key_id = project_keys.id)
                AND NOT EXISTS (SELECT a.id FROM archives a WHERE a.key_id = project_keys.id)
                AND NOT EXISTS (SELECT c.id FROM backup_chains c WHERE c.key_id = project_keys.id)";
        let done = self.db().execute(sql, args![id, Vec::<u8>::new(), now]);
        Ok(done.await? > 0)
    }
}

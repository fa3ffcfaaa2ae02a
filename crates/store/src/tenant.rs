//! Projects of the built-in identity.

use coffer_core::id::TenantId;
use coffer_core::name::Name;
use coffer_core::tenant::Tenant;
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Row, Tx, transact};
use crate::store::Store;

const EXISTS: &str = "project with this id or name";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, is_enabled, description, created_at FROM tenants ",
            $rest
        )
    };
}

/// A project from the columns at `row`.
pub(crate) fn decode(row: &mut Reader<'_>) -> Result<Tenant> {
    Ok(Tenant {
        id: row.parse("id")?,
        name: row.name("name")?,
        is_enabled: row.bool("is_enabled")?,
        description: row.text("description")?,
        created_at: row.time("created_at")?,
    })
}

fn tenant(row: &Row) -> Result<Tenant> {
    decode(&mut Reader::new(row, "tenants"))
}

/// A change of a project; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantChange {
    /// New name.
    pub name: Option<Name>,
    /// Whether its users may log in.
    pub is_enabled: Option<bool>,
    /// New description.
    pub description: Option<String>,
}

/// Writes a project unless it is there. Where another has its name, it gets one of its own.
pub(crate) async fn insert_missing(tx: &mut Tx, tenant: &Tenant) -> Result<()> {
    let sql = "INSERT INTO tenants (id, name, is_enabled, description, created_at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    let t = tenant;
    for name in [t.name.clone(), t.name.beside(t.id.as_str())] {
        let args = args![t.id, name, t.is_enabled, t.description, t.created_at];
        tx.execute(sql, args).await?;
    }
    Ok(())
}

impl Store {
    /// Writes a new project; `AlreadyExists` when its id or name is taken.
    pub async fn insert_tenant(&self, tenant: &Tenant) -> Result<()> {
        let sql = "INSERT INTO tenants (id, name, is_enabled, description, created_at)
            VALUES ($1, $2, $3, $4, $5)";
        let Tenant {
            id,
            name,
            is_enabled,
            description,
            created_at,
        } = tenant;
        let args = args![id, name, is_enabled, description, created_at];
        self.db()
            .execute(sql, args)
            .await
            .map(drop)
            .map_err(|error| error.or_exists(EXISTS))
    }

    /// The project with this id.
    pub async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(tenant).transpose()
    }

    /// The project with this name.
    pub async fn find_tenant_by_name(&self, name: &str) -> Result<Option<Tenant>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE name = $1"), args![name])
            .await?;
        row.as_ref().map(tenant).transpose()
    }

    /// A page of the projects by name, after `marker`.
    pub async fn list_tenants(&self, marker: Option<&str>, limit: u32) -> Result<Vec<Tenant>> {
        let sql = select!("WHERE name > $1 ORDER BY name LIMIT $2");
        let args = args![marker.unwrap_or_default(), limit];
        let rows = self.db().fetch_all(sql, args).await?;
        rows.iter().map(tenant).collect()
    }

    /// Changes what is given, in one statement: what others change meanwhile stays theirs.
    pub async fn update_tenant(&self, id: &TenantId, change: &TenantChange) -> Result<()> {
        let sql = "UPDATE tenants SET name = COALESCE($2, name),
                is_enabled = COALESCE($3, is_enabled), description = COALESCE($4, description)
            WHERE id = $1";
        let args = args![id, change.name, change.is_enabled, change.description];
        let changed = self
            .db()
            .execute(sql, args)
            .await
            .map_err(|e| e.or_exists(EXISTS))?;
        if changed == 0 {
            Err(StoreError::NotFound { what: "project" })
        } else {
            Ok(())
        }
    }

    /// Deletes a project with its empty networks, quotas, tokens and assignments, and destroys its
    /// keys and the authority of its engines: what was sealed for it can be read by nobody, from
    /// no copy either that is made after this. `InUse` while it has instances. Succeeds when
    /// absent.
    pub async fn delete_tenant(&self, id: &TenantId, now: Timestamp) -> Result<()> {
        let in_use = StoreError::InUse { what: "project" };
        let busy = "SELECT id FROM instances WHERE tenant_id = $1 AND is_deleted = 0 LIMIT 1";
        let destroy = "UPDATE project_keys SET wrapped = $2, destroyed_at = $3
            WHERE tenant_id = $1 AND destroyed_at IS NULL";
        let authority = format!("authority/project {id}");
        let outcome = transact!(self, tx => {
            if tx.fetch_optional(busy, args![id]).await?.is_some() {
                return Ok(false);
            }
            tx.execute("DELETE FROM networks WHERE tenant_id = $1", args![id]).await?;
            tx.execute("DELETE FROM quotas WHERE tenant_id = $1", args![id]).await?;
            tx.execute("DELETE FROM secrets WHERE tenant_id = $1", args![id]).await?;
            tx.execute(destroy, args![id, Vec::<u8>::new(), now]).await?;
            tx.execute("DELETE FROM settings WHERE name = $1", args![authority]).await?;
            tx.execute("DELETE FROM tenants WHERE id = $1", args![id]).await?;
            Ok(true)
        });
        match outcome.map_err(|error| error.or_in_use("network of the project"))? {
            true => Ok(()),
            false => Err(in_use),
        }
    }
}

//! Quotas: limits per project, and what is held of them.
//!
//! What is held is counted in the row that carries the limit, so that one statement both checks
//! and takes. What an instance took is remembered in `charges` and given back when it is gone.

use coffer_core::id::{InstanceId, TenantId};
use coffer_core::quota::{Amount, Quota, Resource};

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::Tx;
use crate::store::Store;

const ENSURE_ROW: &str = "INSERT INTO quotas (tenant_id, resource, limit_value, in_use, reserved)
    VALUES ($1, $2, NULL, 0, 0) ON CONFLICT (tenant_id, resource) DO NOTHING";
const CHARGE: &str = "INSERT INTO charges (instance_id, resource, amount) VALUES ($1, $2, $3)";
const TAKE: &str = "UPDATE quotas SET in_use = in_use + $3
    WHERE tenant_id = $1 AND resource = $2 AND (COALESCE(limit_value, $4) < 0
        OR in_use + reserved + $3 <= COALESCE(limit_value, $4))";

/// Takes all amounts for an instance, or none: then all resources that do not suffice are named.
pub(crate) async fn charge(
    tx: &mut Tx,
    tenant_id: &TenantId,
    instance_id: InstanceId,
    amounts: &[Amount],
    default_limit: impl Fn(Resource) -> i64 + Copy + Send + Sync,
) -> Result<()> {
    let mut exceeded = Vec::new();
    for &Amount { resource, amount } in amounts {
        tx.execute(ENSURE_ROW, args![tenant_id, resource]).await?;
        let args = args![tenant_id, resource, amount, default_limit(resource)];
        if tx.execute(TAKE, args).await? == 0 {
            exceeded.push(resource);
        }
    }
    if !exceeded.is_empty() {
        return Err(StoreError::QuotaExceeded {
            resources: exceeded,
        });
    }
    for &Amount { resource, amount } in amounts {
        tx.execute(CHARGE, args![instance_id, resource, amount])
            .await?;
    }
    Ok(())
}

/// Takes all amounts for an instance that is there, whatever the limits say.
pub(crate) async fn charge_anyway(
    tx: &mut Tx,
    tenant_id: &TenantId,
    instance_id: InstanceId,
    amounts: &[Amount],
) -> Result<()> {
    for &Amount { resource, amount } in amounts {
        tx.execute(ENSURE_ROW, args![tenant_id, resource]).await?;
        let sql = "UPDATE quotas SET in_use = in_use + $3 WHERE tenant_id = $1 AND resource = $2";
        tx.execute(sql, args![tenant_id, resource, amount]).await?;
        tx.execute(CHARGE, args![instance_id, resource, amount])
            .await?;
    }
    Ok(())
}

/// Gives back everything that an instance took; nothing when that was done already.
pub(crate) async fn release(tx: &mut Tx, instance_id: InstanceId) -> Result<()> {
    let sql = "UPDATE quotas SET in_use = in_use - (SELECT c.amount FROM charges c
            WHERE c.instance_id = $1 AND c.resource = quotas.resource)
        WHERE tenant_id = (SELECT tenant_id FROM instances WHERE id = $1) AND resource IN
            (SELECT c.resource FROM charges c WHERE c.instance_id = $1)";
    tx.execute(sql, args![instance_id]).await?;
    tx.execute(
        "DELETE FROM charges WHERE instance_id = $1",
        args![instance_id],
    )
    .await
    .map(drop)
}

impl Store {
    /// All resources of a project, with `default` for limits that nobody set.
    pub async fn get_quotas(
        &self,
        tenant_id: &TenantId,
        default: impl Fn(Resource) -> i64 + Copy + Send + Sync,
    ) -> Result<Vec<Quota>> {
        let sql = "SELECT resource, limit_value, in_use, reserved FROM quotas
            WHERE tenant_id = $1";
        let mut stored = Vec::new();
        for row in self.db().fetch_all(sql, args![tenant_id]).await? {
            let mut row = Reader::new(&row, "quotas");
            let resource: Resource = row.parse("resource")?;
            stored.push(Quota {
                resource,
                limit: row
                    .opt_int("limit_value")?
                    .unwrap_or_else(|| default(resource)),
                in_use: row.int("in_use")?,
                reserved: row.int("reserved")?,
            });
        }
        let quota = |&resource: &Resource| {
            let found = stored
                .iter()
                .find(|quota| quota.resource == resource)
                .cloned();
            let limit = default(resource);
            found.unwrap_or(Quota {
                resource,
                limit,
                in_use: 0,
                reserved: 0,
            })
        };
        Ok(Resource::ALL.iter().map(quota).collect())
    }

    /// Sets a limit; -1 means unlimited. What is held already stays.
    pub async fn set_quota(
        &self,
        tenant_id: &TenantId,
        resource: Resource,
        limit: i64,
    ) -> Result<()> {
        let sql = "INSERT INTO quotas (tenant_id, resource, limit_value, in_use, reserved)
            VALUES ($1, $2, $3, 0, 0)
            ON CONFLICT (tenant_id, resource) DO UPDATE SET limit_value = excluded.limit_value";
        self.db()
            .execute(sql, args![tenant_id, resource, limit])
            .await
            .map(drop)
    }

    /// Sets a limit back to the default.
    pub async fn clear_quota(&self, tenant_id: &TenantId, resource: Resource) -> Result<()> {
        let sql = "UPDATE quotas SET limit_value = NULL WHERE tenant_id = $1 AND resource = $2";
        self.db()
            .execute(sql, args![tenant_id, resource])
            .await
            .map(drop)
    }
}

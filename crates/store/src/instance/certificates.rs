//! Instances whose certificates were made long ago.

use coffer_core::id::{InstanceId, SetId, TenantId};
use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::store::Store;

/// An instance in service that no task has given new certificates for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncertified {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its project.
    pub tenant_id: TenantId,
    /// Its set.
    pub set_id: SetId,
}

impl Store {
    /// At most `limit` instances in service for which none of these workflows has ended as intended
    /// since `before`, by id.
    pub async fn list_uncertified(
        &self,
        workflows: &[&str],
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Uncertified>> {
        // Names of workflows hold neither commas nor quotes.
        let names = format!(",{},", workflows.join(","));
        let sql = "SELECT i.id, i.tenant_id, i.set_id FROM instances i
            WHERE i.is_deleted = 0 AND i.lifecycle = 'active' AND NOT EXISTS
                (SELECT t.id FROM tasks t WHERE t.instance_id = i.id AND t.state = 'done'
                    AND t.updated_at >= $1 AND $2 LIKE '%,' || t.workflow || ',%')
            ORDER BY i.id LIMIT $3";
        let rows = self
            .db()
            .fetch_all(sql, args![before, names, limit])
            .await?;
        let one = |row| {
            let mut row = Reader::new(row, "instances");
            Ok(Uncertified {
                instance_id: row.parse("id")?,
                tenant_id: row.parse("tenant_id")?,
                set_id: row.parse("set_id")?,
            })
        };
        rows.iter().map(one).collect()
    }
}

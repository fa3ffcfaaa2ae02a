//! The audit trail: append-only. A line without an outcome gets one, once; nothing here changes a
//! line that has one, or removes any: lines go by age alone (`retention.rs`).

use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, TenantId};

use crate::error::{Result, StoreError};
use crate::row::{Reader, actor_args, args};
use crate::sql::Row;
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, action, target, outcome, at, actor_tenant_id, actor_user_id, \
             actor_roles, actor_request_id, actor_client_address FROM audit ",
            $rest
        )
    };
}

fn entry(row: &Row) -> Result<AuditEntry> {
    let mut row = Reader::new(row, "audit");
    Ok(AuditEntry {
        id: row.parse("id")?,
        action: row.text("action")?,
        target: row.text("target")?,
        outcome: row.number("outcome")?,
        at: row.time("at")?,
        actor: row.actor()?,
    })
}

impl Store {
    /// Appends a line.
    pub async fn insert_audit(&self, entry: &AuditEntry) -> Result<()> {
        let sql = "INSERT INTO audit (id, action, target, outcome, at, actor_tenant_id,
                actor_user_id, actor_roles, actor_request_id, actor_client_address)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let mut args = args![
            entry.id,
            entry.action,
            entry.target,
            entry.outcome,
            entry.at
        ];
        args.extend(actor_args(Some(&entry.actor)));
        let done = self.db().execute(sql, args).await;
        done.map(drop)
            .map_err(|error| error.or_exists("audit line with this id"))
    }

    /// Gives a line its outcome, and what is known better by now of action and target; `NotFound`
    /// when it has one already.
    pub async fn conclude_audit(&self, entry: &AuditEntry) -> Result<()> {
        let sql = "UPDATE audit SET action = $2, target = $3, outcome = $4
            WHERE id = $1 AND outcome = 0";
        let args = args![entry.id, entry.action, entry.target, entry.outcome];
        match self.db().execute(sql, args).await? {
            0 => Err(StoreError::NotFound {
                what: "audit line without an outcome",
            }),
            _ => Ok(()),
        }
    }

    /// A page of the trail, oldest first, after `after`; of one project if given.
    pub async fn list_audit(
        &self,
        tenant: Option<&TenantId>,
        after: Option<AuditId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = match tenant {
            Some(tenant) => {
                let sql = select!("WHERE actor_tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3");
                self.db()
                    .fetch_all(sql, args![tenant, after, limit])
                    .await?
            }
            None => {
                let sql = select!("WHERE id > $1 ORDER BY id LIMIT $2");
                self.db().fetch_all(sql, args![after, limit]).await?
            }
        };
        rows.iter().map(entry).collect()
    }
}

//! Events: an instance's own history.

use coffer_core::event::Event;
use coffer_core::id::{EventId, InstanceId};

use crate::error::Result;
use crate::row::{Reader, actor_args, args};
use crate::sql::{Arg, Row, Tx};
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant_id, instance_id, task_id, code, severity, message, at,
                actor_tenant_id, actor_user_id, actor_roles, actor_request_id,
                actor_client_address
            FROM events ",
            $rest
        )
    };
}

const INSERT: &str = "INSERT INTO events (id, tenant_id, instance_id, task_id, code, severity,
        message, at, actor_tenant_id, actor_user_id, actor_roles, actor_request_id,
        actor_client_address)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO NOTHING";

fn values(event: &Event) -> Vec<Arg> {
    let e = event;
    let mut args = args![
        e.id,
        e.tenant_id,
        e.instance_id,
        e.task_id,
        e.code,
        e.severity,
        e.message,
        e.at
    ];
    args.extend(actor_args(e.actor.as_ref()));
    args
}

fn event(row: &Row) -> Result<Event> {
    let mut row = Reader::new(row, "events");
    Ok(Event {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        instance_id: row.opt_parse("instance_id")?,
        task_id: row.opt_parse("task_id")?,
        code: row.text("code")?,
        severity: row.parse("severity")?,
        message: row.text("message")?,
        at: row.time("at")?,
        actor: row.opt_actor()?,
    })
}

/// Writes an event.
pub(crate) async fn insert(tx: &mut Tx, event: &Event) -> Result<()> {
    tx.execute(INSERT, values(event)).await.map(drop)
}

impl Store {
    /// Writes an event; writing it again changes nothing.
    pub async fn insert_event(&self, event: &Event) -> Result<()> {
        self.db().execute(INSERT, values(event)).await.map(drop)
    }

    /// A page of an instance's events, oldest first, after `after`.
    pub async fn list_events(
        &self,
        instance_id: InstanceId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let sql = select!("WHERE instance_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self
            .db()
            .fetch_all(sql, args![instance_id, after, limit])
            .await?;
        rows.iter().map(event).collect()
    }

    /// The newest event with this code in an instance's history.
    pub async fn find_last_event(
        &self,
        instance_id: InstanceId,
        code: &str,
    ) -> Result<Option<Event>> {
        let sql = select!("WHERE instance_id = $1 AND code = $2 ORDER BY id DESC LIMIT 1");
        let row = self.db().fetch_optional(sql, args![instance_id, code]);
        row.await?.as_ref().map(event).transpose()
    }
}

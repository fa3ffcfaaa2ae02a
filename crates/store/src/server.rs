//! Servers: what providers run. The roots a server mounts are rows of their own.

use coffer_core::id::ServerId;
use coffer_core::server::Server;
use coffer_core::units::Incarnation;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Row, Tx};
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.tenant_id, s.instance_id, s.purpose, s.provider, s.provider_ref, \
             s.incarnation, s.host, s.presence, s.created_at, r.checksum \
             FROM servers s LEFT JOIN server_roots r ON r.server_id = s.id ",
            $rest,
            " ORDER BY s.id, r.ordinal"
        )
    };
}

/// Statement that lists the servers of an instance, a row for each root.
pub(crate) const BY_INSTANCE: &str = select!("WHERE s.instance_id = $1");
const ROOT_COLUMN: usize = 10;

/// Servers from rows of `BY_INSTANCE`.
pub(crate) fn servers(rows: &[Row]) -> Result<Vec<Server>> {
    let mut servers: Vec<Server> = Vec::new();
    for row in rows {
        let next = server(row)?;
        if servers.last().is_none_or(|last| last.id != next.id) {
            servers.push(next);
        }
        let root = Reader::at(row, "server_roots", ROOT_COLUMN).opt_text("checksum")?;
        if let Some(last) = servers.last_mut() {
            last.roots.extend(root);
        }
    }
    Ok(servers)
}

fn server(row: &Row) -> Result<Server> {
    let mut row = Reader::new(row, "servers");
    Ok(Server {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        instance_id: row.opt_parse("instance_id")?,
        purpose: row.parse("purpose")?,
        provider: row.text("provider")?,
        provider_ref: row.opt_text("provider_ref")?,
        incarnation: Incarnation(row.number("incarnation")?),
        host: row.opt_text("host")?,
        roots: Vec::new(),
        presence: row.parse("presence")?,
        created_at: row.time("created_at")?,
    })
}

/// Writes or overwrites a server with its roots.
pub(crate) async fn put(tx: &mut Tx, server: &Server) -> Result<()> {
    let sql = "INSERT INTO servers (id, tenant_id, instance_id, purpose, provider, provider_ref,
            incarnation, host, presence, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO UPDATE SET instance_id = excluded.instance_id,
            purpose = excluded.purpose, provider = excluded.provider,
            provider_ref = excluded.provider_ref, incarnation = excluded.incarnation,
            host = excluded.host, presence = excluded.presence";
    let s = server;
    let args = args![
        s.id,
        s.tenant_id,
        s.instance_id,
        s.purpose,
        s.provider,
        s.provider_ref,
        s.incarnation,
        s.host,
        s.presence,
        s.created_at
    ];
    tx.execute(sql, args).await?;
    tx.execute("DELETE FROM server_roots WHERE server_id = $1", args![s.id])
        .await?;
    let sql = "INSERT INTO server_roots (server_id, ordinal, checksum) VALUES ($1, $2, $3)";
    for (ordinal, root) in (0_i64..).zip(&s.roots) {
        tx.execute(sql, args![s.id, ordinal, root]).await?;
    }
    Ok(())
}

/// Removes a server with its roots and its link.
pub(crate) async fn delete(tx: &mut Tx, id: ServerId) -> Result<()> {
    tx.execute("DELETE FROM servers WHERE id = $1", args![id])
        .await
        .map(drop)
}

impl Store {
    /// The server with this id.
    pub async fn find_server(&self, id: ServerId) -> Result<Option<Server>> {
        let rows = self
            .db()
            .fetch_all(select!("WHERE s.id = $1"), args![id])
            .await?;
        Ok(servers(&rows)?.pop())
    }

    /// Every server; for the reconciler.
    pub async fn list_servers(&self) -> Result<Vec<Server>> {
        servers(&self.db().fetch_all(select!(""), args![]).await?)
    }
}

//! Links: the ways into guests, what pins them, and how far their status was heard.

use coffer_core::id::{InstanceId, ServerId, TenantId};
use coffer_core::instance::Lifecycle;
use coffer_core::server::Link;
use coffer_core::units::Incarnation;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Row, Tx};
use crate::store::Store;

/// A link that should be held: its server runs an instance that is neither deleted nor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLink {
    /// The link.
    pub link: Link,
    /// Instance behind it.
    pub instance_id: InstanceId,
    /// Project of the instance.
    pub tenant_id: TenantId,
    /// What is being done with the instance.
    pub lifecycle: Lifecycle,
    /// Provider of the server.
    pub provider: String,
    /// The provider's own id of the server, once it has one.
    pub provider_ref: Option<String>,
    /// Which rebuild of the server.
    pub incarnation: Incarnation,
}

macro_rules! select {
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT l.id, l.server_id, l.form, l.address, l.key_fingerprint, l.agent_version, \
             l.position ",
            $more,
            " FROM links l ",
            $rest
        )
    };
}

/// Statement that lists the links of an instance's servers.
pub(crate) const BY_INSTANCE: &str = select!(
    "",
    "JOIN servers s ON s.id = l.server_id WHERE s.instance_id = $1 ORDER BY l.id"
);
const LIVE: &str = select!(
    ", i.id, i.tenant_id, i.lifecycle, s.provider, s.provider_ref, s.incarnation",
    "JOIN servers s ON s.id = l.server_id JOIN instances i ON i.id = s.instance_id \
     WHERE s.purpose = 'instance' AND i.is_deleted = 0 AND i.lifecycle <> 'stopped' ORDER BY l.id"
);

/// A link from a row of `BY_INSTANCE`.
pub(crate) fn link(row: &Row) -> Result<Link> {
    decode(&mut Reader::new(row, "links"))
}

fn decode(row: &mut Reader<'_>) -> Result<Link> {
    Ok(Link {
        id: row.parse("id")?,
        server_id: row.parse("server_id")?,
        form: row.parse("form")?,
        address: row.text("address")?,
        key_fingerprint: row.opt_text("key_fingerprint")?,
        agent_version: row.opt_text("agent_version")?,
        position: row.number("position")?,
    })
}

fn live_link(row: &Row) -> Result<LiveLink> {
    let mut row = Reader::new(row, "links");
    Ok(LiveLink {
        link: decode(&mut row)?,
        instance_id: row.parse("instance_id")?,
        tenant_id: row.parse("tenant_id")?,
        lifecycle: row.parse("lifecycle")?,
        provider: row.text("provider")?,
        provider_ref: row.opt_text("provider_ref")?,
        incarnation: Incarnation(row.number("incarnation")?),
    })
}

/// Writes or overwrites the link of a server, its key and position included.
pub(crate) async fn put(tx: &mut Tx, link: &Link) -> Result<()> {
    let sql = "INSERT INTO links (id, server_id, form, address, key_fingerprint, agent_version,
            position)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (server_id) DO UPDATE SET id = excluded.id, form = excluded.form,
            address = excluded.address, key_fingerprint = excluded.key_fingerprint,
            agent_version = excluded.agent_version, position = excluded.position";
    let Link {
        id,
        server_id,
        form,
        address,
        key_fingerprint,
        agent_version,
        position,
    } = link;
    let args = args![
        id,
        server_id,
        form,
        address,
        key_fingerprint,
        agent_version,
        position
    ];
    let done = tx.execute(sql, args).await.map(drop);
    done.map_err(|error| {
        error
            .or_exists("link with this id")
            .or_missing("server of the link")
    })
}

/// Removes the link of a server.
pub(crate) async fn delete(tx: &mut Tx, server_id: ServerId) -> Result<()> {
    tx.execute("DELETE FROM links WHERE server_id = $1", args![server_id])
        .await
        .map(drop)
}

impl Store {
    /// The link of a server.
    pub async fn find_link(&self, server_id: ServerId) -> Result<Option<Link>> {
        let sql = select!("", "WHERE l.server_id = $1");
        self.db()
            .fetch_optional(sql, args![server_id])
            .await?
            .as_ref()
            .map(link)
            .transpose()
    }

    /// Links of all servers that run instances which are neither deleted nor stopped.
    pub async fn list_live_links(&self) -> Result<Vec<LiveLink>> {
        self.db()
            .fetch_all(LIVE, args![])
            .await?
            .iter()
            .map(live_link)
            .collect()
    }

    /// Remembers how far a guest's status was heard; never goes back.
    pub async fn set_link_position(&self, server_id: ServerId, position: u64) -> Result<()> {
        let sql = "UPDATE links SET position = $2 WHERE server_id = $1 AND position < $2";
        self.db()
            .execute(sql, args![server_id, position])
            .await
            .map(drop)
    }

    /// Pins a guest's key at its first dial and remembers its version; `false` when another key
    /// is pinned already or there is no such link.
    pub async fn pin_link(
        &self,
        server_id: ServerId,
        fingerprint: &str,
        agent_version: &str,
    ) -> Result<bool> {
        let sql = "UPDATE links SET key_fingerprint = $2, agent_version = $3
            WHERE server_id = $1 AND (key_fingerprint IS NULL OR key_fingerprint = $2)";
        Ok(self
            .db()
            .execute(sql, args![server_id, fingerprint, agent_version])
            .await?
            > 0)
    }
}

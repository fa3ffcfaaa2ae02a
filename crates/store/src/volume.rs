//! Volumes: what providers keep. A volume may outlive its server and its instance.

use coffer_core::id::VolumeId;
use coffer_core::server::Volume;
use coffer_core::units::Incarnation;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Row, Tx};
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant_id, instance_id, server_id, role, provider, provider_ref, \
             incarnation, size_gib, volume_type, parent_id, template, presence, created_at \
             FROM volumes ",
            $rest
        )
    };
}

/// Statement that lists the volumes of an instance.
pub(crate) const BY_INSTANCE: &str = select!("WHERE instance_id = $1 ORDER BY id");

/// A volume from a row of `BY_INSTANCE`.
pub(crate) fn volume(row: &Row) -> Result<Volume> {
    let mut row = Reader::new(row, "volumes");
    Ok(Volume {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        instance_id: row.opt_parse("instance_id")?,
        server_id: row.opt_parse("server_id")?,
        role: row.parse("role")?,
        provider: row.text("provider")?,
        provider_ref: row.opt_text("provider_ref")?,
        incarnation: Incarnation(row.number("incarnation")?),
        size: row.size("size_gib")?,
        volume_type: row.opt_text("volume_type")?,
        parent: row.opt_parse("parent_id")?,
        template: row.opt_text("template")?,
        presence: row.parse("presence")?,
        created_at: row.time("created_at")?,
    })
}

/// Writes or overwrites a volume.
pub(crate) async fn put(tx: &mut Tx, volume: &Volume) -> Result<()> {
    let sql = "INSERT INTO volumes (id, tenant_id, instance_id, server_id, role, provider,
            provider_ref, incarnation, size_gib, volume_type, parent_id, template, presence,
            created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT (id) DO UPDATE SET instance_id = excluded.instance_id,
            server_id = excluded.server_id, role = excluded.role, provider = excluded.provider,
            provider_ref = excluded.provider_ref, incarnation = excluded.incarnation,
            size_gib = excluded.size_gib, volume_type = excluded.volume_type,
            parent_id = excluded.parent_id, template = excluded.template,
            presence = excluded.presence";
    let v = volume;
    let args = args![
        v.id,
        v.tenant_id,
        v.instance_id,
        v.server_id,
        v.role,
        v.provider,
        v.provider_ref,
        v.incarnation,
        v.size,
        v.volume_type,
        v.parent,
        v.template,
        v.presence,
        v.created_at
    ];
    tx.execute(sql, args).await.map(drop)
}

/// Removes a volume.
pub(crate) async fn delete(tx: &mut Tx, id: VolumeId) -> Result<()> {
    tx.execute("DELETE FROM volumes WHERE id = $1", args![id])
        .await
        .map(drop)
}

impl Store {
    /// The volume with this id.
    pub async fn find_volume(&self, id: VolumeId) -> Result<Option<Volume>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(volume).transpose()
    }

    /// Every volume; for the reconciler.
    pub async fn list_volumes(&self) -> Result<Vec<Volume>> {
        let rows = self.db().fetch_all(select!("ORDER BY id"), args![]).await?;
        rows.iter().map(volume).collect()
    }
}

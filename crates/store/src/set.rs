//! Replication sets. One column names the primary, and it changes only with a newer generation.

use coffer_core::id::{InstanceId, SetId};
use coffer_core::replication::ReplicationSet;
use coffer_core::units::{Generation, Timeline};

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Row, Tx};
use crate::store::Store;

/// Statement that finds a set by its id.
pub(crate) const BY_ID: &str =
    "SELECT id, tenant_id, mode, generation, timeline, primary_instance_id FROM sets WHERE id = $1";

/// A set from a row of `BY_ID`.
pub(crate) fn set(row: &Row) -> Result<ReplicationSet> {
    let mut row = Reader::new(row, "sets");
    Ok(ReplicationSet {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        mode: row.parse("mode")?,
        generation: Generation(row.number("generation")?),
        timeline: Timeline(row.number("timeline")?),
        primary: row.opt_parse("primary_instance_id")?,
    })
}

/// Writes a new set.
pub(crate) async fn insert(tx: &mut Tx, set: &ReplicationSet) -> Result<()> {
    let sql = "INSERT INTO sets (id, tenant_id, mode, generation, timeline, primary_instance_id)
        VALUES ($1, $2, $3, $4, $5, $6)";
    let ReplicationSet {
        id,
        tenant_id,
        mode,
        generation,
        timeline,
        primary,
    } = set;
    let args = args![id, tenant_id, mode, generation, timeline, primary];
    tx.execute(sql, args)
        .await
        .map(drop)
        .map_err(|error| error.or_exists("set with this id"))
}

/// Changes who is primary; the new one is a member, and the generation is newer. Repeating the
/// same change is no error.
pub(crate) async fn set_primary(
    tx: &mut Tx,
    id: SetId,
    primary: Option<InstanceId>,
    generation: Generation,
) -> Result<()> {
    let sql = "UPDATE sets SET primary_instance_id = $2, generation = $3
        WHERE id = $1 AND generation < $3 AND ($2 IS NULL OR EXISTS
            (SELECT id FROM instances WHERE id = $2 AND set_id = $1 AND is_deleted = 0))";
    if tx.execute(sql, args![id, primary, generation]).await? > 0 {
        return Ok(());
    }
    let row = tx.fetch_optional(BY_ID, args![id]).await?;
    match row.as_ref().map(set).transpose()? {
        Some(set) if set.primary == primary && set.generation == generation => Ok(()),
        Some(_) => Err(StoreError::Stale {
            what: "primary of the set",
        }),
        None => Err(StoreError::NotFound { what: "set" }),
    }
}

impl Store {
    /// The set with this id.
    pub async fn find_set(&self, id: SetId) -> Result<Option<ReplicationSet>> {
        self.db()
            .fetch_optional(BY_ID, args![id])
            .await?
            .as_ref()
            .map(set)
            .transpose()
    }
}

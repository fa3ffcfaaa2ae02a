//! What guests say of their engines. Only the conductor writes it.

use coffer_core::instance::{Instance, Observation};

use crate::error::Result;
use crate::row::args;
use crate::sql::{Tx, transact};
use crate::store::Store;

/// Changes nothing, and then writes nothing, when all was known.
const RECORD: &str = "UPDATE statuses SET
        health_at = CASE WHEN health <> $2 THEN $7 ELSE health_at END,
        health = $2, generation = $3, volume_used_bytes = $4, volume_total_bytes = $5,
        inventory_counter = $6
    WHERE instance_id = $1 AND generation <= $3 AND (health <> $2 OR generation <> $3
        OR volume_used_bytes IS DISTINCT FROM $4 OR volume_total_bytes IS DISTINCT FROM $5
        OR inventory_counter <> $6)
    RETURNING instance_id, health_at";

/// Writes the status of a new instance.
pub(crate) async fn insert(tx: &mut Tx, instance: &Instance) -> Result<()> {
    let sql = "INSERT INTO statuses
            (instance_id, health, health_at, generation, volume_used_bytes, inventory_counter)
        VALUES ($1, $2, $3, 0, $4, 0)";
    let Instance {
        id,
        health,
        health_at,
        volume_used_bytes,
        ..
    } = instance;
    tx.execute(sql, args![id, health, health_at, volume_used_bytes])
        .await
        .map(drop)
}

async fn record(tx: &mut Tx, seen: &Observation) -> Result<u64> {
    let Observation {
        instance_id,
        generation,
        health,
        at,
        ..
    } = seen;
    let (used, total) = (seen.volume_used_bytes, seen.volume_total_bytes);
    let args = args![
        instance_id,
        health,
        generation,
        used,
        total,
        seen.inventory_counter,
        at
    ];
    let rows = tx.fetch_all(RECORD, args).await?;
    let Some(row) = rows.first() else {
        return Ok(0);
    };
    if row.int(1).flatten() == Some(at.micros()) {
        end_waits(tx, seen).await?;
    }
    Ok(1)
}

async fn end_waits(tx: &mut Tx, seen: &Observation) -> Result<()> {
    let sql = "UPDATE tasks SET run_at = $2 WHERE instance_id = $1 AND state = 'ready'
        AND run_at > $2 AND wait_reason LIKE 'guest.%'";
    if tx.execute(sql, args![seen.instance_id, seen.at]).await? > 0 {
        tx.wake();
    }
    Ok(())
}

impl Store {
    /// Writes what was heard, in one transaction, and gives the number of instances for which
    /// anything changed. What an older generation says is ignored. A change of health ends waits
    /// of the instance's tasks whose reason begins with `guest.`; lifecycles are never touched.
    pub async fn record_observations(&self, observations: &[Observation]) -> Result<u64> {
        transact!(self, tx => {
            let mut changed = 0;
            for seen in observations {
                changed += record(&mut tx, seen).await?;
            }
            Ok(changed)
        })
    }
}

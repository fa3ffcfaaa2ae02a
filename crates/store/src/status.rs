//! What guests say of their engines. Only the conductor writes it.

use coffer_core::event::Event;
use coffer_core::id::InstanceId;
use coffer_core::instance::{Instance, Observation};
use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::event;
use crate::row::{Reader, args};
use crate::sql::{Columns, Tx, transact};
use crate::store::Store;

/// What is to be written of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Its guest was heard.
    Heard {
        /// What it said.
        seen: Observation,
        /// What its history says of that.
        events: Vec<Event>,
    },
    /// Its guest was not heard for too long. All but its health stays as it was last known.
    Lost {
        /// The instance.
        instance_id: InstanceId,
        /// When it was given up.
        at: Timestamp,
    },
}

/// Changes nothing, and then writes nothing, when all was known.
const HEARD: &str = "UPDATE statuses SET
        health_at = CASE WHEN health <> $2 THEN $7 ELSE health_at END,
        health = $2, generation = $3, volume_used_bytes = $4, volume_total_bytes = $5,
        inventory_counter = $6, engine_run = COALESCE($8, engine_run)
    WHERE instance_id = $1 AND generation <= $3 AND (health <> $2 OR generation <> $3
        OR volume_used_bytes IS DISTINCT FROM $4 OR volume_total_bytes IS DISTINCT FROM $5
        OR inventory_counter <> $6 OR engine_run IS DISTINCT FROM COALESCE($8, engine_run))
    RETURNING instance_id, health_at";
const LOST: &str = "UPDATE statuses SET health = 'lost', health_at = $2
    WHERE instance_id = $1 AND health <> 'lost'";

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

async fn record(tx: &mut Tx, report: &Report) -> Result<u64> {
    match report {
        Report::Heard { seen, events } => {
            for event in events {
                event::insert(tx, event).await?;
            }
            heard(tx, seen).await
        }
        Report::Lost { instance_id, at } => tx.execute(LOST, args![instance_id, at]).await,
    }
}

async fn heard(tx: &mut Tx, seen: &Observation) -> Result<u64> {
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
        at,
        seen.engine_run
    ];
    let rows = tx.fetch_all(HEARD, args).await?;
    let Some(row) = rows.first() else {
        return Ok(0);
    };
    if Columns::from(row).int(1).flatten() == Some(at.micros()) {
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
    /// Writes what was heard or missed, in order and in one transaction, and gives the number of
    /// instances for which anything changed. What an older generation says is ignored. A change
    /// of health ends waits of the instance's tasks whose reason begins with `guest.`; lifecycles
    /// are never touched.
    pub async fn record_reports(&self, reports: &[Report]) -> Result<u64> {
        transact!(self, tx => {
            let mut changed = 0;
            for report in reports {
                changed += record(&mut tx, report).await?;
            }
            Ok(changed)
        })
    }

    /// The run of an instance's engine that was heard last; none before the first.
    pub async fn find_engine_run(&self, instance_id: InstanceId) -> Result<Option<String>> {
        let sql = "SELECT instance_id, engine_run FROM statuses WHERE instance_id = $1";
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        let run = row.map(|row| Reader::at(&row, "statuses", 1).opt_text("engine_run"));
        Ok(run.transpose()?.flatten())
    }
}

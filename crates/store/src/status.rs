//! What guests say of their engines. Only the conductor writes it.

use std::collections::BTreeSet;

use coffer_core::event::Event;
use coffer_core::id::InstanceId;
use coffer_core::instance::{Instance, Observation};
use coffer_core::time::Timestamp;
use serde_json::{Value, json};

use crate::error::Result;
use crate::event;
use crate::row::{Reader, args, saturated};
use crate::sql::{Sql, Tx, transact};
use crate::store::Store;

/// What is to be written of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Its guest was heard.
    Heard {
        /// What it said.
        seen: Observation,
        /// Whether its health may be another than was told before: only then can waits end.
        is_turn: bool,
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

/// What was heard of many instances, each of them once, as rows out of one JSON array: each
/// statement of its own, and each row that it gives back, is a way to the driver's thread and back.
/// SQLite and PostgreSQL take JSON apart by functions of their own.
macro_rules! with_heard {
    ($before:literal, $after:literal) => {
        Sql::differing(
            concat!(
                $before,
                " FROM (SELECT value ->> 0 AS id, value ->> 1 AS health, value ->> 2 AS generation,
                    value ->> 3 AS used, value ->> 4 AS total, value ->> 5 AS counter,
                    value ->> 6 AS run, value ->> 7 AS at FROM json_each($1)) AS heard",
                $after
            ),
            concat!(
                $before,
                " FROM (SELECT value ->> 0 AS id, value ->> 1 AS health,
                    (value ->> 2)::bigint AS generation, (value ->> 3)::bigint AS used,
                    (value ->> 4)::bigint AS total, (value ->> 5)::bigint AS counter,
                    value ->> 6 AS run, (value ->> 7)::bigint AS at
                    FROM json_array_elements($1::json)) AS heard",
                $after
            ),
        )
    };
}

/// Changes nothing, and then writes nothing, where all was known.
const HEARD: Sql = with_heard!(
    "UPDATE statuses SET
        health_at = CASE WHEN statuses.health <> heard.health THEN heard.at ELSE health_at END,
        health = heard.health, generation = heard.generation,
        volume_used_bytes = heard.used, volume_total_bytes = heard.total,
        inventory_counter = heard.counter, engine_run = COALESCE(heard.run, engine_run)",
    " WHERE instance_id = heard.id AND statuses.generation <= heard.generation
        AND (statuses.health <> heard.health OR statuses.generation <> heard.generation
        OR volume_used_bytes IS DISTINCT FROM heard.used
        OR volume_total_bytes IS DISTINCT FROM heard.total
        OR inventory_counter <> heard.counter
        OR engine_run IS DISTINCT FROM COALESCE(heard.run, engine_run))"
);
/// Ends the waits of instances whose health has just become another.
const END_WAITS: Sql = with_heard!(
    "UPDATE tasks SET run_at = heard.at",
    ", statuses WHERE statuses.instance_id = heard.id AND statuses.health_at = heard.at
        AND tasks.instance_id = heard.id AND tasks.state = 'ready' AND tasks.run_at > heard.at
        AND tasks.wait_reason LIKE 'guest.%'"
);
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

/// What is next to be written: the reports that one statement can write.
enum Part<'a> {
    Heard(Vec<(&'a Observation, bool)>),
    Lost(InstanceId, Timestamp),
}

/// Cuts reports into statements, in their order: one writes no instance twice.
fn parts(reports: &[Report]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut present = BTreeSet::new();
    for report in reports {
        match report {
            Report::Heard { seen, is_turn, .. } => {
                let is_new = present.insert(seen.instance_id);
                match parts.last_mut() {
                    Some(Part::Heard(all)) if is_new => all.push((seen, *is_turn)),
                    _ => {
                        present = BTreeSet::from([seen.instance_id]);
                        parts.push(Part::Heard(vec![(seen, *is_turn)]));
                    }
                }
            }
            Report::Lost { instance_id, at } => parts.push(Part::Lost(*instance_id, *at)),
        }
    }
    parts
}

async fn record(tx: &mut Tx, reports: &[Report]) -> Result<u64> {
    for report in reports {
        if let Report::Heard { events, .. } = report {
            for event in events {
                event::insert(tx, event).await?;
            }
        }
    }
    let mut changed = 0;
    for part in parts(reports) {
        changed += match part {
            Part::Heard(all) => heard(tx, &all).await?,
            Part::Lost(id, at) => tx.execute(LOST, args![id, at]).await?,
        };
    }
    Ok(changed)
}

/// A row of the statement: its columns in their order.
fn heard_row(seen: &Observation) -> Value {
    json!([
        seen.instance_id.to_string(),
        seen.health.as_str(),
        // One beyond all that are given out is older than any.
        seen.generation.0.cast_signed(),
        saturated(seen.volume_used_bytes),
        saturated(seen.volume_total_bytes),
        saturated(seen.inventory_counter),
        seen.engine_run,
        seen.at.micros(),
    ])
}

async fn heard(tx: &mut Tx, all: &[(&Observation, bool)]) -> Result<u64> {
    let rows: Value = all.iter().map(|(seen, _)| heard_row(seen)).collect();
    let changed = tx.execute(HEARD, args![rows.to_string()]).await?;
    let turns = all.iter().filter(|(_, is_turn)| *is_turn);
    let turns: Vec<Value> = turns.map(|(seen, _)| heard_row(seen)).collect();
    if changed == 0 || turns.is_empty() {
        return Ok(changed);
    }
    let rows = Value::from(turns).to_string();
    if tx.execute(END_WAITS, args![rows]).await? > 0 {
        tx.wake();
    }
    Ok(changed)
}

impl Store {
    /// Writes what was heard or missed, in order and in one transaction, and gives the number of
    /// instances for which anything changed. What an older generation says is ignored. A change
    /// of health ends waits of the instance's tasks whose reason begins with `guest.`; lifecycles
    /// are never touched.
    pub async fn record_reports(&self, reports: &[Report]) -> Result<u64> {
        transact!(self, tx => {
            record(&mut tx, reports).await
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

#[cfg(test)]
mod tests {
    use coffer_core::instance::Health;
    use coffer_core::units::Generation;
    use uuid::Uuid;

    use super::*;

    fn heard(id: u128) -> Report {
        let seen = Observation {
            instance_id: InstanceId::from_uuid(Uuid::from_u128(id)),
            generation: Generation(1),
            health: Health::Healthy,
            volume_used_bytes: 1,
            volume_total_bytes: 2,
            inventory_counter: 3,
            engine_run: None,
            at: Timestamp::default(),
        };
        let events = Vec::new();
        Report::Heard {
            seen,
            is_turn: true,
            events,
        }
    }

    fn lost(id: u128) -> Report {
        Report::Lost {
            instance_id: InstanceId::from_uuid(Uuid::from_u128(id)),
            at: Timestamp::default(),
        }
    }

    #[test]
    fn no_statement_writes_an_instance_twice_or_out_of_order() {
        let lengths = |reports: &[Report]| -> Vec<usize> {
            let length = |part: &Part<'_>| match part {
                Part::Heard(all) => all.len(),
                Part::Lost(..) => 0,
            };
            parts(reports).iter().map(length).collect()
        };
        assert_eq!(lengths(&[]), [0usize; 0]);
        assert_eq!(lengths(&[heard(1), heard(2), heard(3)]), [3]);
        assert_eq!(lengths(&[heard(1), heard(2), heard(1), heard(2)]), [2, 2]);
        assert_eq!(lengths(&[heard(1), lost(1), heard(1), heard(2)]), [1, 0, 2]);
        assert_eq!(lengths(&[heard(1), lost(2), heard(3)]), [1, 0, 1]);
    }
}

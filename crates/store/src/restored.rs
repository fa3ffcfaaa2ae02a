//! A store that was restored from an older state: what is outside is newer than it.
//!
//! Until the operator confirms, a mark in the store keeps everything still: no task is claimed,
//! nothing is removed, brought back or begun. On confirmation what happened since is settled here,
//! an instance at a time, and the mark goes last, so that a settlement that was interrupted is
//! done again from its beginning.

use std::sync::atomic::Ordering;

use coffer_core::event::Event;
use coffer_core::flavor::{Flavor, VolumeType};
use coffer_core::id::{InstanceId, TaskId};
use coffer_core::instance::{Fault, Instance, Lifecycle};
use coffer_core::network::Network;
use coffer_core::quota::Amount;
use coffer_core::replication::{Endpoint, ReplicationSet};
use coffer_core::server::{Server, Volume};
use coffer_core::task::Task;
use coffer_core::tenant::Tenant;
use coffer_core::time::Timestamp;
use coffer_core::units::Turn;

use crate::error::Result;
use crate::instance::{self, SpecChange};
use crate::row::{Reader, args};
use crate::sql::{Tx, transact};
use crate::store::Store;
use crate::{
    endpoint, event, flavor, lock, network, quota, server, set, status, task, tenant, volume,
    volume_type,
};

/// The mark: when the state was backed up and when it was restored.
const MARK: &str = "restored";
/// What the operator wants; absent until then.
const CONFIRMED: &str = "restored/confirmed";
/// What was found or done, for the operator.
const REPORT: &str = "restored/report";
/// Tasks that an instance may have had since the backup; turns begin anew beyond them.
const TURNS_AHEAD: u64 = 1 << 32;

/// Of which state a store is, and whether the operator has confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// When the state was backed up.
    pub made_at: Timestamp,
    /// When it was restored.
    pub restored_at: Timestamp,
    /// Whether the operator has confirmed, and how.
    pub confirmed: Option<Confirmed>,
}

/// What is to be done with what nothing is known of but that it carries the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// There must be nothing of the kind.
    Keep,
    /// It is left to the reconciler, which removes it.
    Discard,
}

/// What became of an instance that both the store and the provider know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled<'a> {
    /// The instance.
    pub instance_id: InstanceId,
    /// What is being done with it now.
    pub lifecycle: Lifecycle,
    /// Why it cannot go on.
    pub fault: Option<&'a Fault>,
    /// What of its spec changed since.
    pub change: &'a SpecChange,
    /// What brings it back.
    pub task: Option<&'a Task>,
    /// What is said of it.
    pub event: &'a Event,
    /// Now.
    pub now: Timestamp,
}

/// An instance that the provider holds and the store has lost, with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted<'a> {
    /// Its project, made if it was lost too.
    pub tenant: &'a Tenant,
    /// Its network, made if it was lost too.
    pub network: &'a Network,
    /// Its flavor, made if it was lost too.
    pub flavor: &'a Flavor,
    /// Its volume type, if it has one, made if it was lost too.
    pub volume_type: Option<&'a VolumeType>,
    /// The instance.
    pub instance: &'a Instance,
    /// Its set.
    pub set: &'a ReplicationSet,
    /// Its endpoint.
    pub endpoint: &'a Endpoint,
    /// Its server.
    pub server: &'a Server,
    /// Its volume.
    pub volume: &'a Volume,
    /// What it holds of its project's quotas, whatever their limits say.
    pub charges: &'a [Amount],
    /// The newest turn that its provider has heard of.
    pub turn: Turn,
    /// What brings it into service.
    pub task: Option<&'a Task>,
    /// What its history begins with.
    pub event: &'a Event,
}

impl Store {
    /// Marks the store as restored from a state that was backed up at `made_at`. Logins of then are
    /// over, some of which were ended since.
    pub async fn mark_restored(&self, made_at: Timestamp, now: Timestamp) -> Result<()> {
        let value = format!("{} {}", made_at.micros(), now.micros());
        transact!(self, tx => {
            for name in [CONFIRMED, REPORT] {
                tx.execute("DELETE FROM settings WHERE name = $1", args![name]).await?;
            }
            let sql = "INSERT INTO settings (name, value) VALUES ($1, $2)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            tx.execute(sql, args![MARK, value]).await?;
            // What the provider has heard of since is not newer than what is asked of it next.
            let sql = "UPDATE instances SET turn = turn + $1";
            tx.execute(sql, args![TURNS_AHEAD]).await?;
            tx.execute("DELETE FROM tokens", args![]).await.map(drop)
        })?;
        self.is_unmarked().store(false, Ordering::Release);
        Ok(())
    }

    /// Whether this is a restored store that nobody has settled yet. Stores are marked while nobody
    /// works on them, so that one that was found without a mark is not asked again.
    pub async fn is_restored(&self) -> Result<bool> {
        if self.is_unmarked().load(Ordering::Acquire) {
            return Ok(false);
        }
        Ok(self.restored().await?.is_some())
    }

    /// The mark, if there is one.
    pub async fn restored(&self) -> Result<Option<Restored>> {
        let Some(text) = self.get_setting(MARK).await? else {
            self.is_unmarked().store(true, Ordering::Release);
            return Ok(None);
        };
        let corrupt = || crate::StoreError::Corrupt {
            table: "settings",
            id: MARK.to_owned(),
            column: "value",
        };
        let (made_at, restored_at) = text.split_once(' ').ok_or_else(corrupt)?;
        let time = |text: &str| {
            let micros = text.parse().map_err(|_| corrupt())?;
            Ok::<_, crate::StoreError>(Timestamp::from_micros(micros))
        };
        let confirmed = self.get_setting(CONFIRMED).await?;
        Ok(Some(Restored {
            made_at: time(made_at)?,
            restored_at: time(restored_at)?,
            confirmed: confirmed.map(|how| match how.as_str() {
                "discard" => Confirmed::Discard,
                _ => Confirmed::Keep,
            }),
        }))
    }

    /// Notes that the operator confirms; whoever runs the reconciler does the rest.
    pub async fn confirm_restored(&self, how: Confirmed) -> Result<()> {
        let how = match how {
            Confirmed::Keep => "keep",
            Confirmed::Discard => "discard",
        };
        self.put_setting(CONFIRMED, how).await
    }

    /// Takes a confirmation back that cannot be followed.
    pub async fn refuse_confirmation(&self) -> Result<()> {
        self.delete_setting(CONFIRMED).await
    }

    /// What was found, or done at the end, as JSON text. Gives whether it is another than before.
    pub async fn put_restore_report(&self, report: &str) -> Result<bool> {
        if self.restore_report().await?.as_deref() == Some(report) {
            return Ok(false);
        }
        self.put_setting(REPORT, report).await.map(|()| true)
    }

    /// What was found, or done at the end.
    pub async fn restore_report(&self) -> Result<Option<String>> {
        self.get_setting(REPORT).await
    }

    /// Ends every task that had not ended when the state was backed up: what it was about to do
    /// was done or undone since.
    pub async fn end_old_tasks(&self, why: &str, now: Timestamp) -> Result<u64> {
        transact!(self, tx => end_tasks(&mut tx, why, now).await)
    }

    /// Writes what became of an instance since the backup.
    pub async fn settle_instance(&self, settled: &Settled<'_>) -> Result<()> {
        transact!(self, tx => settle(&mut tx, settled).await)
    }

    /// Ends an instance whose deletion the store has forgotten.
    pub async fn forget_instance(
        &self,
        id: InstanceId,
        event: &Event,
        now: Timestamp,
    ) -> Result<()> {
        transact!(self, tx => {
            instance::finish_delete(&mut tx, id, now).await?;
            let sql = "DELETE FROM volumes WHERE instance_id = $1";
            tx.execute(sql, args![id]).await?;
            event::insert(&mut tx, event).await
        })
    }

    /// Writes an instance that the provider holds. Gives `false` when it is known already.
    pub async fn adopt_instance(&self, adopted: &Adopted<'_>) -> Result<bool> {
        if self.find_instance(adopted.instance.id).await?.is_some() {
            return Ok(false);
        }
        transact!(self, tx => adopt(&mut tx, adopted).await).map(|()| true)
    }

    /// Takes the mark away: from now on work goes on.
    pub async fn end_restored(&self) -> Result<()> {
        transact!(self, tx => {
            for name in [CONFIRMED, MARK] {
                tx.execute("DELETE FROM settings WHERE name = $1", args![name]).await?;
            }
            tx.wake();
            Ok(())
        })
    }
}

async fn end_tasks(tx: &mut Tx, why: &str, now: Timestamp) -> Result<u64> {
    let sql = "SELECT id FROM tasks WHERE state NOT IN ('done', 'failed', 'cancelled')
        ORDER BY id";
    let rows = tx.fetch_all(sql, args![]).await?;
    let mut ended = 0;
    for row in &rows {
        let id: TaskId = Reader::new(row, "tasks").parse("id")?;
        lock::release_all(tx, id, now).await?;
        let sql = "UPDATE tasks SET state = 'cancelled', owner = NULL, version = version + 1,
                has_locks = 0, error = $2, updated_at = $3,
                wait_reason = NULL, wait_message = NULL, wait_unblocked_by = NULL,
                wait_since = NULL
            WHERE id = $1";
        ended += tx.execute(sql, args![id, why, now]).await?;
        tx.execute("DELETE FROM signals WHERE task_id = $1", args![id])
            .await?;
    }
    Ok(ended)
}

async fn settle(tx: &mut Tx, settled: &Settled<'_>) -> Result<()> {
    let (id, now) = (settled.instance_id, settled.now);
    if *settled.change != SpecChange::default() {
        instance::set_spec(tx, id, settled.change, now).await?;
    }
    // No task is under way, so that a deletion has none that could be protected.
    let sql = "UPDATE instances SET lifecycle = $2, fault_message = $3, fault_details = $4,
            fault_at = $5, updated_at = $6, delete_task_id = NULL
        WHERE id = $1 AND is_deleted = 0";
    let fault = settled.fault;
    let mut args = args![
        id,
        settled.lifecycle,
        fault.map(|f| &f.message),
        fault.map(|f| &f.details)
    ];
    args.extend(args![fault.map(|f| f.at), now]);
    tx.execute(sql, args).await?;
    event::insert(tx, settled.event).await?;
    match settled.task {
        Some(task) => task::insert(tx, task).await,
        None => Ok(()),
    }
}

async fn adopt(tx: &mut Tx, adopted: &Adopted<'_>) -> Result<()> {
    let Adopted { instance, .. } = adopted;
    tenant::insert_missing(tx, adopted.tenant).await?;
    flavor::insert_missing(tx, adopted.flavor).await?;
    if let Some(one) = adopted.volume_type {
        volume_type::insert_missing(tx, one).await?;
    }
    network::insert_missing(tx, adopted.network).await?;
    set::insert(tx, adopted.set).await?;
    instance::insert(tx, instance).await?;
    let sql = "UPDATE instances SET turn = $2 WHERE id = $1";
    tx.execute(sql, args![instance.id, adopted.turn.0]).await?;
    quota::charge_anyway(tx, &instance.tenant_id, instance.id, adopted.charges).await?;
    status::insert(tx, instance).await?;
    endpoint::put(tx, adopted.endpoint).await?;
    server::put(tx, adopted.server).await?;
    volume::put(tx, adopted.volume).await?;
    event::insert(tx, adopted.event).await?;
    match adopted.task {
        Some(task) => task::insert(tx, task).await,
        None => Ok(()),
    }
}

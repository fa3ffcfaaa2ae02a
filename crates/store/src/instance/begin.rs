//! Beginning something with an instance, and what workflows change of it afterwards.

use coffer_core::access::Access;
use coffer_core::event::Event;
use coffer_core::id::{FlavorId, InstanceId, TaskId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{Signal, Task};
use coffer_core::time::Timestamp;
use coffer_core::units::{Incarnation, VolumeSize};

use crate::error::{Result, StoreError};
use crate::row::{Reader, args, list_text};
use crate::sql::{Tx, transact};
use crate::store::Store;
use crate::{event, signal, task};

/// Something to begin with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginTask<'a> {
    /// The instance.
    pub instance_id: InstanceId,
    /// States in which it may begin.
    pub expected: &'a [Lifecycle],
    /// State while it is being done.
    pub to: Lifecycle,
    /// The task that does it.
    pub task: &'a Task,
    /// What is said of it.
    pub event: Option<&'a Event>,
    /// What of the spec changes with it.
    pub change: SpecChange,
    /// Now.
    pub now: Timestamp,
}

/// What of the spec changes; `None` leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecChange {
    /// Another flavor.
    pub flavor_id: Option<FlavorId>,
    /// Another volume size.
    pub volume: Option<VolumeSize>,
    /// Another access.
    pub access: Option<Access>,
}

/// Lifecycle of a live instance and the task that deletes or last deleted it.
async fn current(tx: &mut Tx, id: InstanceId) -> Result<(Lifecycle, Option<TaskId>)> {
    let sql = "SELECT id, lifecycle, delete_task_id FROM instances
        WHERE id = $1 AND is_deleted = 0";
    let row = tx.fetch_optional(sql, args![id]).await?;
    let row = row.ok_or(StoreError::NotFound { what: "instance" })?;
    let mut row = Reader::at(&row, "instances", 1);
    Ok((row.parse("lifecycle")?, row.opt_parse("delete_task_id")?))
}

/// Sets what is being done with an instance. Only the task that deletes an instance may change
/// one that is being deleted: whatever else was under way has lost it.
pub(crate) async fn set_lifecycle(
    tx: &mut Tx,
    id: InstanceId,
    (lifecycle, fault): (Lifecycle, Option<&Fault>),
    task_id: TaskId,
    now: Timestamp,
) -> Result<()> {
    let sql = "UPDATE instances SET lifecycle = $2, fault_message = $3, fault_details = $4,
            fault_at = $5, updated_at = $6
        WHERE id = $1 AND is_deleted = 0 AND (lifecycle <> 'deleting' OR delete_task_id = $7)";
    let mut args = args![
        id,
        lifecycle,
        fault.map(|f| &f.message),
        fault.map(|f| &f.details)
    ];
    args.extend(args![fault.map(|f| f.at), now, task_id]);
    tx.execute(sql, args).await.map(drop)
}

/// Changes what is asked of an instance.
pub(crate) async fn set_spec(
    tx: &mut Tx,
    id: InstanceId,
    change: &SpecChange,
    now: Timestamp,
) -> Result<()> {
    let sql = "UPDATE instances SET flavor_id = COALESCE($2, flavor_id),
            volume_gib = COALESCE($3, volume_gib), is_public = COALESCE($4, is_public),
            allowed_cidrs = COALESCE($5, allowed_cidrs), updated_at = $6
        WHERE id = $1";
    let access = change.access.as_ref();
    let (is_public, cidrs) = (
        access.map(|a| a.is_public),
        access.map(|a| list_text(&a.allowed_cidrs)),
    );
    let args = args![id, change.flavor_id, change.volume, is_public, cidrs, now];
    tx.execute(sql, args).await.map(drop)
}

/// Sets the number of an instance's rebuilds; never goes back.
pub(crate) async fn set_incarnation(
    tx: &mut Tx,
    id: InstanceId,
    incarnation: Incarnation,
) -> Result<()> {
    let sql = "UPDATE instances SET incarnation = $2 WHERE id = $1 AND incarnation < $2";
    tx.execute(sql, args![id, incarnation]).await.map(drop)
}

/// Counts the instance's turn on.
pub(crate) async fn count_turn(tx: &mut Tx, id: &str) -> Result<()> {
    let sql = "UPDATE instances SET turn = turn + 1 WHERE id = $1";
    tx.execute(sql, args![id]).await.map(drop)
}

async fn begin(tx: &mut Tx, begin: &BeginTask<'_>) -> Result<()> {
    let (lifecycle, _) = current(tx, begin.instance_id).await?;
    if !begin.expected.contains(&lifecycle) {
        return Err(StoreError::NotAllowed { lifecycle });
    }
    let sql = "UPDATE instances SET lifecycle = $2, fault_message = NULL, fault_details = NULL,
            fault_at = NULL, updated_at = $3
        WHERE id = $1 AND lifecycle = $4";
    let args = args![begin.instance_id, begin.to, begin.now, lifecycle];
    if tx.execute(sql, args).await? == 0 {
        return Err(StoreError::Stale { what: "instance" });
    }
    if begin.change != SpecChange::default() {
        set_spec(tx, begin.instance_id, &begin.change, begin.now).await?;
    }
    if let Some(event) = begin.event {
        event::insert(tx, event).await?;
    }
    task::insert(tx, begin.task).await
}

async fn begin_delete(
    tx: &mut Tx,
    id: InstanceId,
    task: &Task,
    event: Option<&Event>,
    now: Timestamp,
) -> Result<TaskId> {
    let (lifecycle, deleting) = current(tx, id).await?;
    let unended = task::unended(tx, id).await?;
    let under_way = deleting.filter(|task| unended.contains(task));
    if let (Lifecycle::Deleting, Some(under_way)) = (lifecycle, under_way) {
        return Ok(under_way);
    }
    let sql = "UPDATE instances SET lifecycle = 'deleting', delete_task_id = $2, updated_at = $3
        WHERE id = $1";
    tx.execute(sql, args![id, task.id, now]).await?;
    for other in unended {
        signal::send(tx, other, Signal::Delete, now).await?;
    }
    if let Some(event) = event {
        event::insert(tx, event).await?;
    }
    task::insert(tx, task).await?;
    Ok(task.id)
}

impl Store {
    /// Moves an instance from one of the expected states to another, clears its fault and
    /// enqueues the task, in one transaction; `NotAllowed` when it is in none of them.
    pub async fn begin_task(&self, ask: &BeginTask<'_>) -> Result<()> {
        transact!(self, tx => begin(&mut tx, ask).await)
    }

    /// Begins the deletion of an instance in whatever state it is: tells all its tasks, and
    /// enqueues `task` unless a delete is under way. Gives the id of the task that deletes it.
    pub async fn begin_delete(
        &self,
        id: InstanceId,
        task: &Task,
        event: Option<&Event>,
        now: Timestamp,
    ) -> Result<TaskId> {
        transact!(self, tx => begin_delete(&mut tx, id, task, event, now).await)
    }
}

//! Why an instance is as it is: its state, its task, what that waits for, down to the root cause.

use coffer_core::event::{AuditEntry, Event};
use coffer_core::id::{AuditId, EventId, InstanceId, TaskId};
use coffer_core::instance::{Health, Instance, InstanceSpec, Lifecycle};
use coffer_core::task::{Task, TaskStepRecord};
use coffer_core::time::Timestamp;
use coffer_store::instance::InstanceView;

use super::AppState;
use crate::conductor::trouble;
use crate::error::Result;
use crate::limits;

/// Everything that explains an instance.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The instance.
    pub view: InstanceView,
    /// The task that works on it, or the one that ended last in failure.
    pub task: Option<Task>,
    /// The task that stopped it on request, if it is stopped.
    pub stopped_by: Option<Task>,
    /// The tasks that block that one, nearest first, root cause last.
    pub blocked_by: Vec<Task>,
    /// The last steps of the task, oldest first.
    pub history: Vec<TaskStepRecord>,
    /// What its guest said last of an engine that does not serve.
    pub trouble: Option<Event>,
    /// What its host cannot enforce, as far as this process knows.
    pub not_enforced: Vec<String>,
    /// Now, to tell how long something lasts.
    pub now: Timestamp,
}

/// Explains an instance.
pub async fn explain(app: &AppState, view: InstanceView) -> Result<Explanation> {
    let id = view.instance.id;
    let not_enforced = not_enforced(app, &view.instance.spec).await?;
    let trouble = last_trouble(app, &view.instance).await?;
    let is_stopped = view.instance.lifecycle == Lifecycle::Stopped;
    let task = app.store.find_active_task(id).await?;
    let newest = match &task {
        Some(_) => None,
        None => app.store.find_newest_task(id).await?,
    };
    let stopped_by = newest.clone().filter(|_| is_stopped);
    let task = task.or_else(|| newest.filter(|task| task.error.is_some()));
    let (blocked_by, history) = match &task {
        Some(task) => (blockers(app, task).await?, last_steps(app, task).await?),
        None => (Vec::new(), Vec::new()),
    };
    Ok(Explanation {
        view,
        task,
        stopped_by,
        blocked_by,
        history,
        trouble,
        not_enforced,
        now: app.clock.now(),
    })
}

async fn last_trouble(app: &AppState, instance: &Instance) -> Result<Option<Event>> {
    if !matches!(instance.health, Health::Blocked | Health::Crashed) {
        return Ok(None);
    }
    let last = app.store.find_last_event(instance.id, trouble::CODE);
    Ok(last.await?)
}

/// What the host of this process's instances cannot enforce of what one of them is asked with.
async fn not_enforced(app: &AppState, spec: &InstanceSpec) -> Result<Vec<String>> {
    let Some(abilities) = app.abilities.get() else {
        return Ok(Vec::new());
    };
    let mut told = abilities.not_enforced.clone();
    if let (Some(gap), Some(name)) = (&abilities.io_gap, &spec.volume_type) {
        let volume_type = app.store.find_volume_type(name).await?;
        let is_limited = volume_type.is_some_and(|found| !found.io.is_none());
        told.extend(is_limited.then(|| format!("I/O limits of volume type {name}: {gap}")));
    }
    Ok(told)
}

async fn last_steps(app: &AppState, task: &Task) -> Result<Vec<TaskStepRecord>> {
    let last = app.store.list_last_history(task.id, limits::EXPLAIN_STEPS);
    Ok(last.await?)
}

/// Follows `task ID` from wait to wait; bounded, because two tasks may wait for each other for the
/// moment in which one of them is told to stop.
async fn blockers(app: &AppState, task: &Task) -> Result<Vec<Task>> {
    let mut chain: Vec<Task> = Vec::new();
    let mut next = blocker(task);
    while let Some(id) = next.take() {
        let is_known = id == task.id || chain.iter().any(|one| one.id == id);
        if is_known || chain.len() >= limits::EXPLAIN_DEPTH {
            break;
        }
        if let Some(found) = app.store.find_task(id).await? {
            next = blocker(&found);
            chain.push(found);
        }
    }
    Ok(chain)
}

/// The task that can end this one's wait, if a task can.
fn blocker(task: &Task) -> Option<TaskId> {
    let wait = task.wait.as_ref()?;
    wait.unblocked_by.strip_prefix("task ")?.trim().parse().ok()
}

/// A page of an instance's history, oldest first, and the marker of the next page.
pub async fn events(
    app: &AppState,
    id: InstanceId,
    after: Option<EventId>,
    limit: u32,
) -> Result<(Vec<Event>, Option<EventId>)> {
    let mut rows = app.store.list_events(id, after, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(|last| last.id);
    Ok((rows, next))
}

/// A page of the audit trail, oldest first, and the marker of the next page.
pub async fn audit(
    app: &AppState,
    tenant: Option<&coffer_core::id::TenantId>,
    after: Option<AuditId>,
    limit: u32,
) -> Result<(Vec<AuditEntry>, Option<AuditId>)> {
    let mut rows = app.store.list_audit(tenant, after, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(|last| last.id);
    Ok((rows, next))
}

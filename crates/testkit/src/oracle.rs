//! Promises that are checked while a world runs, not only when it has settled: who makes outside
//! calls, who takes tasks over, and who waits for nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coffer_control::limits;
use coffer_control::workflow;
use coffer_core::id::TaskId;
use coffer_core::task::{LockKind, Signal, Task, TaskState};
use coffer_core::time::Timestamp;
use coffer_store::Store;
use coffer_store::lock::LOCK_HELD;
use coffer_store::task::RunningTask;

/// Whoever calls the outside holds the task at its present version, and alone its instance.
pub(crate) async fn check_call(store: &Store, task: &Task) -> Result<(), String> {
    let stored = store.find_task(task.id).await.map_err(|e| e.to_string())?;
    let is_held = stored.is_some_and(|stored| {
        let is_same = stored.owner == task.owner && stored.version == task.version;
        stored.state == TaskState::Running && is_same
    });
    let at = || format!("{} of {} at {}", task.id, task.workflow, task.step);
    if !is_held {
        return Err(format!("task {} calls without holding it", at()));
    }
    let Some(instance) = task.instance_id else {
        return Ok(());
    };
    let locks = store
        .list_locks(LockKind::Instance, &instance.to_string())
        .await
        .map_err(|e| e.to_string())?;
    match locks.as_slice() {
        [one] if one.task_id == task.id => Ok(()),
        others => Err(format!("task {} calls under the locks {others:?}", at())),
    }
}

/// Whether a task that is not due waits for something that will not end, or ended already.
pub(crate) async fn check_wait(store: &Store, task: &Task, now: Timestamp) -> Result<(), String> {
    if task.state != TaskState::Ready || task.run_at <= now {
        return Ok(());
    }
    let reason = task.wait.as_ref().map_or("", |wait| wait.reason.as_str());
    let is_preempting = task.workflow == "delete_instance";
    let signals = store.list_signals(task.id).await;
    let signals = signals.map_err(|e| e.to_string())?;
    if signals.contains(&Signal::Delete) && !is_preempting {
        return Err(format!("a task was told to stop and waits on: {task:#?}"));
    }
    if reason == LOCK_HELD {
        return check_lock_wait(store, task).await;
    }
    let Some(policy) = workflow::workflow(&task.workflow).and_then(|w| w.task_policy(task).ok())
    else {
        return Ok(());
    };
    let is_late = policy
        .deadline_seconds
        .is_some_and(|seconds| task.updated_at >= task.step_at.plus_seconds(i64::from(seconds)));
    if is_late {
        return Err(format!("a step waits beyond its deadline: {task:#?}"));
    }
    if policy.retries.is_some_and(|max| task.attempt > max) {
        return Err(format!("a step is tried for ever: {task:#?}"));
    }
    Ok(())
}

async fn check_lock_wait(store: &Store, task: &Task) -> Result<(), String> {
    let Some(instance) = task.instance_id else {
        return Ok(());
    };
    let locks = store
        .list_locks(LockKind::Instance, &instance.to_string())
        .await
        .map_err(|e| e.to_string())?;
    if locks.is_empty() {
        return Err(format!(
            "a task waits for a lock that nobody holds: {task:#?}"
        ));
    }
    if task.workflow != "delete_instance" {
        return Ok(());
    }
    for holder in locks {
        let told = store.list_signals(holder.task_id).await;
        if !told.map_err(|e| e.to_string())?.contains(&Signal::Delete) {
            return Err(format!("a delete waits for {holder:?}, which was not told"));
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Seen {
    version: u64,
    lease: u64,
    owner: String,
    since: Duration,
}

/// What a world has seen of leases, whoever looked.
#[derive(Debug, Default)]
pub(crate) struct LeaseLog {
    seen: Mutex<BTreeMap<TaskId, Seen>>,
}

impl LeaseLog {
    /// Notes what runs now.
    pub(crate) fn observe(&self, running: &[RunningTask], now: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, _| running.iter().any(|task| task.id == *id));
        for task in running {
            let fresh = Seen {
                version: task.version,
                lease: task.lease,
                owner: task.owner.clone(),
                since: now,
            };
            let known = seen.entry(task.id).or_insert_with(|| fresh.clone());
            if (known.version, known.lease) != (task.version, task.lease) {
                *known = fresh;
            }
        }
    }

    /// Whether these claims, made at `now`, were allowed: what was ready was due, and what ran
    /// had not moved its lease for the whole lease time, or had been let go of by the same worker.
    pub(crate) fn check(
        &self,
        claimed: &[Task],
        monotonic: Duration,
        now: Timestamp,
    ) -> Result<(), String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for task in claimed {
            match seen.get(&task.id) {
                Some(before)
                    if task.owner.as_ref() != Some(&before.owner)
                        && monotonic.saturating_sub(before.since) < limits::LEASE =>
                {
                    return Err(format!("task {} was taken from a live worker", task.id));
                }
                None if task.run_at > now => {
                    return Err(format!("task {} was claimed before it was due", task.id));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

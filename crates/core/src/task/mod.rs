//! Durable work: stored runs of workflows, their locks, signals and waits.

use crate::actor::Actor;
use crate::id::{InstanceId, SetId, TaskId, TenantId};
use crate::time::Timestamp;
use crate::word_enum;

word_enum! {
    /// Where a task stands.
    TaskState, "task state" {
        /// May be claimed, at once or from its `run_at` on.
        Ready = "ready",
        /// A worker holds its lease.
        Running = "running",
        /// Ended as intended.
        Done = "done",
        /// Ended after undoing what it had done.
        Failed = "failed",
        /// Ended because something else took over.
        Cancelled = "cancelled",
        /// Its stored step is unknown to the running binary; an operator has to look.
        Stuck = "stuck",
    }
}

impl TaskState {
    /// Whether the task will never run again by itself.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

word_enum! {
    /// A durable request to a running task.
    Signal, "signal" {
        /// The object is being deleted: stop and leave the rest to the delete.
        Delete = "delete",
        /// Stop and undo.
        Cancel = "cancel",
        /// What was waited for may have happened.
        Wake = "wake",
    }
}

word_enum! {
    /// What a lock protects.
    LockKind, "lock kind" {
        /// A replication set.
        Set = "set",
        /// An instance.
        Instance = "instance",
        /// A backup.
        Backup = "backup",
        /// A role that one process plays at a time (conductor, reconciler).
        Singleton = "singleton",
    }
}

word_enum! {
    /// How a lock is held.
    LockMode, "lock mode" {
        /// Beside other shared holders.
        Shared = "shared",
        /// Alone.
        Exclusive = "exclusive",
    }
}

/// A lock that a task needs before its first step. Locks are taken in one transaction, in the
/// order set, instances by id, the rest: `Ord` is that order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockRequest {
    /// What it protects.
    pub kind: LockKind,
    /// Id of the object.
    pub id: String,
    /// How it is held.
    pub mode: LockMode,
}

impl LockRequest {
    /// The lock on an instance.
    pub fn instance(id: InstanceId, mode: LockMode) -> Self {
        Self {
            kind: LockKind::Instance,
            id: id.to_string(),
            mode,
        }
    }

    /// The lock on a set.
    pub fn set(id: SetId, mode: LockMode) -> Self {
        Self {
            kind: LockKind::Set,
            id: id.to_string(),
            mode,
        }
    }
}

/// Priority of tasks that preempt: deletes and failovers signal holders to stop.
pub const PRIORITY_PREEMPT: i64 = 100;
/// Priority of what a tenant asked for.
pub const PRIORITY_NORMAL: i64 = 50;

/// Why a task waits, who can end the wait, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Stable code (`guest.unreachable`, `lock.held`).
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// Who can end it: `provider`, `guest`, `task ID`, `operator`, `tenant`.
    pub unblocked_by: String,
    /// Since when.
    pub since: Timestamp,
}

/// A stored run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Project it works for.
    pub tenant_id: TenantId,
    /// Instance it works on, if any.
    pub instance_id: Option<InstanceId>,
    /// Name of the workflow.
    pub workflow: String,
    /// What the workflow was given, as JSON text.
    pub input: String,
    /// The step to run next, as JSON text.
    pub step: String,
    /// Where it stands.
    pub state: TaskState,
    /// Grows with every commit; every commit compares it.
    pub version: u64,
    /// Worker that holds the lease.
    pub owner: Option<String>,
    /// Lease counter: the owner moves it; another worker takes over only after it has seen it
    /// unmoved for the lease time on its own monotonic clock.
    pub lease: u64,
    /// Tries of the present step.
    pub attempt: u32,
    /// Not to be claimed before.
    pub run_at: Timestamp,
    /// Priority; higher goes first.
    pub priority: i64,
    /// Whether its locks are held.
    pub has_locks: bool,
    /// Why it waits, if it does.
    pub wait: Option<Wait>,
    /// When the present step was entered.
    pub step_at: Timestamp,
    /// When the present step must have ended.
    pub deadline: Option<Timestamp>,
    /// The public message of why it failed or is undoing.
    pub error: Option<String>,
    /// What it gave back, as JSON text, once done.
    pub output: Option<String>,
    /// Who asked.
    pub actor: Actor,
    /// When it was asked.
    pub created_at: Timestamp,
    /// Last commit.
    pub updated_at: Timestamp,
}

/// One line of a task's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStepRecord {
    /// Version of the task after the commit.
    pub version: u64,
    /// Step that ran, as JSON text.
    pub step: String,
    /// What came of it: `next`, `wait`, `done`, `unwind`, `retry`, `cancelled`.
    pub outcome: String,
    /// Reason in words.
    pub message: String,
    /// Source line that decided it.
    pub source: String,
    /// Milliseconds the step took.
    pub took_ms: i64,
    /// When.
    pub at: Timestamp,
}

//! Locks between tasks: rows, taken all or none, held by a task until it lets go of all.
//!
//! Whoever is blocked leaves a row in `lock_waits`. Letting go removes it and makes the waiter due;
//! a commit that waits for a lock but finds no such row any more knows that it was let go in
//! between, and makes its task due as well.

use coffer_core::id::TaskId;
use coffer_core::task::{LockKind, LockMode, LockRequest, Signal};
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::instance;
use crate::row::{Reader, args};
use crate::signal;
use crate::sql::{Tx, transact};
use crate::store::Store;

/// Reason of a wait for a lock: such a wait ends when the lock is let go.
pub const LOCK_HELD: &str = "lock.held";

/// What came of asking for locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOutcome {
    /// All are held now.
    Acquired,
    /// None was taken: a task holds one of them. The asker is woken when it lets go.
    Blocked {
        /// The task that holds it.
        by: TaskId,
        /// What that task runs.
        workflow: String,
    },
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// What it protects.
    pub kind: LockKind,
    /// Id of the object.
    pub id: String,
    /// How it is held.
    pub mode: LockMode,
    /// By which task.
    pub task_id: TaskId,
}

/// Who asks for which locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire<'a> {
    /// The task.
    pub task_id: TaskId,
    /// Its version, compared.
    pub version: u64,
    /// Its worker, compared.
    pub owner: &'a str,
    /// What it needs.
    pub locks: &'a [LockRequest],
    /// Whether holders of lower priority are told to stop.
    pub preempt: bool,
    /// Now.
    pub now: Timestamp,
}

/// A task that holds what another asks for.
struct Holder {
    task_id: TaskId,
    workflow: String,
    priority: i64,
}

/// The others that hold a lock which excludes the request.
async fn holders(tx: &mut Tx, me: TaskId, request: &LockRequest) -> Result<Vec<Holder>> {
    let sql = "SELECT l.task_id, t.workflow, t.priority
        FROM locks l JOIN tasks t ON t.id = l.task_id
        WHERE l.kind = $1 AND l.object_id = $2 AND l.task_id <> $3
            AND (l.mode = 'exclusive' OR $4 = 'exclusive')
        ORDER BY t.priority DESC, l.task_id";
    let args = args![request.kind, request.id, me, request.mode];
    let mut holders = Vec::new();
    for row in tx.fetch_all(sql, args).await? {
        let mut row = Reader::new(&row, "locks");
        holders.push(Holder {
            task_id: row.parse("task_id")?,
            workflow: row.text("workflow")?,
            priority: row.int("priority")?,
        });
    }
    Ok(holders)
}

/// The priority of the asking task, if it is still the asker's.
async fn own_priority(tx: &mut Tx, ask: &Acquire<'_>) -> Result<i64> {
    let sql = "SELECT id, priority FROM tasks
        WHERE id = $1 AND version = $2 AND owner = $3 AND state = 'running'";
    let row = tx
        .fetch_optional(sql, args![ask.task_id, ask.version, ask.owner])
        .await?;
    let row = row.ok_or(StoreError::Stale { what: "task" })?;
    Reader::at(&row, "tasks", 1).int("priority")
}

/// Notes that the task waits for this lock and, if it preempts, tells lesser holders to stop.
async fn block(
    tx: &mut Tx,
    ask: &Acquire<'_>,
    request: &LockRequest,
    holders: &[Holder],
) -> Result<()> {
    let sql = "INSERT INTO lock_waits (kind, object_id, task_id) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING";
    tx.execute(sql, args![request.kind, request.id, ask.task_id])
        .await?;
    if !ask.preempt {
        return Ok(());
    }
    let priority = own_priority(tx, ask).await?;
    for holder in holders.iter().filter(|holder| holder.priority < priority) {
        signal::send(tx, holder.task_id, Signal::Delete, ask.now).await?;
    }
    Ok(())
}

async fn take(tx: &mut Tx, ask: &Acquire<'_>) -> Result<()> {
    let sql = "INSERT INTO locks (kind, object_id, task_id, mode, at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (kind, object_id, task_id) DO UPDATE SET mode = CASE
            WHEN locks.mode = 'exclusive' THEN locks.mode ELSE excluded.mode END";
    for request in ask.locks {
        let args = args![request.kind, request.id, ask.task_id, request.mode, ask.now];
        tx.execute(sql, args).await?;
        if (request.kind, request.mode) == (LockKind::Instance, LockMode::Exclusive) {
            instance::count_turn(tx, &request.id).await?;
        }
    }
    tx.execute(
        "UPDATE tasks SET has_locks = 1 WHERE id = $1",
        args![ask.task_id],
    )
    .await?;
    stop_waiting(tx, ask.task_id).await
}

async fn stop_waiting(tx: &mut Tx, task_id: TaskId) -> Result<()> {
    tx.execute("DELETE FROM lock_waits WHERE task_id = $1", args![task_id])
        .await
        .map(drop)
}

async fn acquire(tx: &mut Tx, ask: &Acquire<'_>) -> Result<LockOutcome> {
    own_priority(tx, ask).await?;
    let mut locks: Vec<&LockRequest> = ask.locks.iter().collect();
    locks.sort();
    let mut blocked = None;
    for request in locks {
        let holders = holders(tx, ask.task_id, request).await?;
        let Some(first) = holders.first() else {
            continue;
        };
        block(tx, ask, request, &holders).await?;
        let (by, workflow) = (first.task_id, first.workflow.clone());
        blocked.get_or_insert(LockOutcome::Blocked { by, workflow });
    }
    match blocked {
        Some(blocked) => Ok(blocked),
        None => take(tx, ask).await.map(|()| LockOutcome::Acquired),
    }
}

/// Lets go of all locks of a task and makes those due that wait for one of them.
pub(crate) async fn release_all(tx: &mut Tx, task_id: TaskId, now: Timestamp) -> Result<()> {
    stop_waiting(tx, task_id).await?;
    let due = "UPDATE tasks SET run_at = $2 WHERE state = 'ready' AND run_at > $2 AND id IN
            (SELECT w.task_id FROM lock_waits w JOIN locks l
                ON l.kind = w.kind AND l.object_id = w.object_id WHERE l.task_id = $1)";
    tx.execute(due, args![task_id, now]).await?;
    let heard = "DELETE FROM lock_waits WHERE EXISTS (SELECT l.task_id FROM locks l
            WHERE l.kind = lock_waits.kind AND l.object_id = lock_waits.object_id
                AND l.task_id = $1)";
    if tx.execute(heard, args![task_id]).await? > 0 {
        tx.wake();
    }
    tx.execute("DELETE FROM locks WHERE task_id = $1", args![task_id])
        .await
        .map(drop)
}

/// Whether the task still waits for a lock that nobody let go since it asked.
pub(crate) async fn is_waiting(tx: &mut Tx, task_id: TaskId) -> Result<bool> {
    let sql = "SELECT task_id FROM lock_waits WHERE task_id = $1 LIMIT 1";
    Ok(tx.fetch_optional(sql, args![task_id]).await?.is_some())
}

impl Store {
    /// Takes all locks or none, in one transaction; locks the task already has count as held. The
    /// task's version stays. `Stale` when the task is no longer the worker's. When it is blocked,
    /// commit a wait with the reason `LOCK_HELD`: it ends as soon as a lock is let go.
    pub async fn acquire_locks(&self, ask: &Acquire<'_>) -> Result<LockOutcome> {
        transact!(self, tx => acquire(&mut tx, ask).await)
    }

    /// Who holds the locks on an object.
    pub async fn list_locks(&self, kind: LockKind, id: &str) -> Result<Vec<HeldLock>> {
        let sql = "SELECT kind, object_id, mode, task_id FROM locks
            WHERE kind = $1 AND object_id = $2 ORDER BY task_id";
        let held = |row| {
            let mut row = Reader::new(row, "locks");
            Ok(HeldLock {
                kind: row.parse("kind")?,
                id: row.text("object_id")?,
                mode: row.parse("mode")?,
                task_id: row.parse("task_id")?,
            })
        };
        self.db()
            .fetch_all(sql, args![kind, id])
            .await?
            .iter()
            .map(held)
            .collect()
    }
}

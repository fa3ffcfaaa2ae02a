//! Tasks: stored runs of workflows, their claims, leases, commits and history.
//!
//! A claim gives a task to one worker; every commit compares version and owner, so that a worker
//! that lost its task writes nothing. The lease is a counter that its owner moves; the version
//! grows with every claim and commit.

use coffer_core::id::{InstanceId, TaskId};
use coffer_core::task::{Task, TaskState, TaskStepRecord, Wait};
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::lock;
use crate::row::{Reader, actor_args, args};
use crate::secret::{self, StoredSecret};
use crate::signal;
use crate::sql::{Row, Sql, Tx, transact};
use crate::store::Store;
use crate::write::{self, Write};

/// A running task as another worker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// Its id.
    pub id: TaskId,
    /// Worker that holds its lease.
    pub owner: String,
    /// Its version.
    pub version: u64,
    /// Its lease counter.
    pub lease: u64,
}

/// A task that has not ended, as far as every schema knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTask {
    /// Its id.
    pub id: TaskId,
    /// Its workflow.
    pub workflow: String,
    /// Its present step, as JSON text.
    pub step: String,
    /// What it was given, as JSON text.
    pub input: String,
}

/// What a commit makes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskUpdate {
    /// Step to run next, as JSON text.
    pub step: String,
    /// Where the task stands; anything but `Running` gives the lease back.
    pub state: TaskState,
    /// Tries of the step.
    pub attempt: u32,
    /// Not to be claimed before.
    pub run_at: Timestamp,
    /// Why it waits, if it does.
    pub wait: Option<Wait>,
    /// When the step was entered.
    pub step_at: Timestamp,
    /// When the step must have ended.
    pub deadline: Option<Timestamp>,
    /// The public message of why it failed or is undoing.
    pub error: Option<String>,
    /// What it gave back, as JSON text.
    pub output: Option<String>,
    /// Whether its locks are given back; always done when the state is an end.
    pub release_locks: bool,
}

/// The end of a step: what is committed in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCommit {
    /// The task.
    pub task_id: TaskId,
    /// Its version, compared.
    pub version: u64,
    /// The worker that ran it, compared.
    pub owner: String,
    /// What becomes of the task.
    pub update: TaskUpdate,
    /// A line of its history; its version is set by the store.
    pub record: Option<TaskStepRecord>,
    /// What the step wants written.
    pub writes: Vec<Write>,
    /// Now.
    pub now: Timestamp,
}

macro_rules! columns {
    () => {
        "id, tenant_id, instance_id, workflow, input, step, state, version, owner, lease, \
         attempt, run_at, priority, has_locks, wait_reason, wait_message, wait_unblocked_by, \
         wait_since, step_at, deadline, error, output, actor_tenant_id, actor_user_id, \
         actor_roles, actor_request_id, actor_client_address, created_at, updated_at"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM tasks ", $rest)
    };
}

/// How long a task lay about since a time; ten seconds are none.
macro_rules! lain_about {
    ($now:literal, $since:literal) => {
        concat!(
            "CASE WHEN ",
            $now,
            " - ",
            $since,
            " > 10000000 THEN ",
            $now,
            " - ",
            $since,
            " ELSE 0 END"
        )
    };
}

/// Sets the times of a step forth by what the task lay about, which is not time that it had: nobody
/// ran it because Coffer was down, its worker died or the store failed.
macro_rules! not_lain_about {
    ($now:literal, $since:literal) => {
        concat!(
            "step_at = step_at + ",
            lain_about!($now, $since),
            ", deadline = deadline + ",
            lain_about!($now, $since)
        )
    };
}

macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE tasks SET state = 'running', owner = $1, updated_at = $2, \
                 lease = lease + 1, version = version + 1, ",
            // What is heard may set it back to before its last look.
            not_lain_about!(
                "$2",
                "(CASE WHEN run_at > updated_at THEN run_at ELSE updated_at END)"
            ),
            " WHERE id IN (SELECT id FROM tasks WHERE state = 'ready' AND run_at <= $2 \
                 ORDER BY priority DESC, run_at, id LIMIT $3",
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}

/// PostgreSQL would give one task to two claims without the lock clause, which SQLite, where
/// claims come one after the other, does not know.
const CLAIM: Sql = Sql::differing(claim!(""), claim!(" FOR UPDATE SKIP LOCKED"));
/// What the dead worker did of the step is done again, and has its whole time again.
const STEAL: &str = concat!(
    "UPDATE tasks SET owner = $4, updated_at = $5, lease = lease + 1, version = version + 1, ",
    not_lain_about!("$5", "updated_at"),
    " WHERE id = $1 AND version = $2 AND lease = $3 AND state = 'running' RETURNING ",
    columns!()
);
const COMMIT: &str = "UPDATE tasks SET version = version + 1, lease = lease + 1, step = $4,
        state = $5, owner = $6, attempt = $7, run_at = $8, wait_reason = $9, wait_message = $10,
        wait_unblocked_by = $11, wait_since = $12, step_at = $13, deadline = $14, error = $15,
        output = $16, updated_at = $17
    WHERE id = $1 AND version = $2 AND owner = $3 AND state = 'running'";

/// Setting with the last jump of the clock: when, and by how many milliseconds.
const CLOCK_SET: &str = "clock/set";
/// Time within which two processes notice the same jump, and how far their measures differ.
const SAME_JUMP_MS: i64 = 60_000;
const MEASURES_DIFFER_MS: i64 = 5_000;

fn is_same_jump(noted: &str, by_ms: i64, now: Timestamp) -> bool {
    let Some((at, by)) = noted.split_once(' ') else {
        return false;
    };
    let (Ok(at), Ok(by)) = (at.parse::<i64>(), by.parse::<i64>()) else {
        return false;
    };
    let apart_ms = (now.micros() - at).abs() / 1_000;
    apart_ms < SAME_JUMP_MS && (by - by_ms).abs() < MEASURES_DIFFER_MS
}

fn wait(row: &mut Reader<'_>) -> Result<Option<Wait>> {
    let reason = row.opt_text("wait_reason")?;
    let message = row.opt_text("wait_message")?;
    let unblocked_by = row.opt_text("wait_unblocked_by")?;
    let since = row.opt_time("wait_since")?;
    let Some(reason) = reason else {
        return Ok(None);
    };
    Ok(Some(Wait {
        reason,
        message: message.unwrap_or_default(),
        unblocked_by: unblocked_by.unwrap_or_default(),
        since: since.ok_or_else(|| row.corrupt("wait_since"))?,
    }))
}

fn task(row: &Row) -> Result<Task> {
    let mut row = Reader::new(row, "tasks");
    Ok(Task {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        instance_id: row.opt_parse("instance_id")?,
        workflow: row.text("workflow")?,
        input: row.text("input")?,
        step: row.text("step")?,
        state: row.parse("state")?,
        version: row.number("version")?,
        owner: row.opt_text("owner")?,
        lease: row.number("lease")?,
        attempt: row.number("attempt")?,
        run_at: row.time("run_at")?,
        priority: row.int("priority")?,
        has_locks: row.bool("has_locks")?,
        wait: wait(&mut row)?,
        step_at: row.time("step_at")?,
        deadline: row.opt_time("deadline")?,
        error: row.opt_text("error")?,
        output: row.opt_text("output")?,
        actor: row.actor()?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn record(row: &Row) -> Result<TaskStepRecord> {
    let mut row = Reader::at(row, "task_steps", 1);
    Ok(TaskStepRecord {
        version: row.number("version")?,
        step: row.text("step")?,
        outcome: row.text("outcome")?,
        message: row.text("message")?,
        source: row.text("source")?,
        took_ms: row.int("took_ms")?,
        at: row.time("at")?,
    })
}

/// Enqueues a task.
pub(crate) async fn insert(tx: &mut Tx, task: &Task) -> Result<()> {
    let sql = "INSERT INTO tasks (id, tenant_id, instance_id, workflow, input, step, state,
            version, owner, lease, attempt, run_at, priority, has_locks, wait_reason,
            wait_message, wait_unblocked_by, wait_since, step_at, deadline, error, output,
            created_at, updated_at, actor_tenant_id, actor_user_id, actor_roles,
            actor_request_id, actor_client_address)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)";
    let (t, wait) = (task, task.wait.as_ref());
    let mut args = args![
        t.id,
        t.tenant_id,
        t.instance_id,
        t.workflow,
        t.input,
        t.step,
        t.state
    ];
    args.extend(args![
        t.version,
        t.owner,
        t.lease,
        t.attempt,
        t.run_at,
        t.priority,
        t.has_locks
    ]);
    args.extend(args![wait.map(|w| &w.reason), wait.map(|w| &w.message)]);
    args.extend(args![wait.map(|w| &w.unblocked_by), wait.map(|w| w.since)]);
    args.extend(args![
        t.step_at,
        t.deadline,
        t.error,
        t.output,
        t.created_at,
        t.updated_at
    ]);
    args.extend(actor_args(Some(&t.actor)));
    tx.wake();
    tx.execute(sql, args)
        .await
        .map(drop)
        .map_err(|error| error.or_exists("task with this id"))
}

/// The un-ended tasks of an instance.
pub(crate) async fn unended(tx: &mut Tx, instance_id: InstanceId) -> Result<Vec<TaskId>> {
    let sql = "SELECT id FROM tasks WHERE instance_id = $1
        AND state NOT IN ('done', 'failed', 'cancelled') ORDER BY id";
    let rows = tx.fetch_all(sql, args![instance_id]).await?;
    rows.iter()
        .map(|row| Reader::new(row, "tasks").parse("id"))
        .collect()
}

/// Compare-and-set of the task's row; `Stale` when it is not the worker's any more.
async fn update(tx: &mut Tx, commit: &StepCommit) -> Result<()> {
    let (u, wait) = (&commit.update, commit.update.wait.as_ref());
    let owner = (u.state == TaskState::Running).then_some(&commit.owner);
    let mut args = args![
        commit.task_id,
        commit.version,
        commit.owner,
        u.step,
        u.state,
        owner
    ];
    args.extend(args![u.attempt, u.run_at]);
    args.extend(args![wait.map(|w| &w.reason), wait.map(|w| &w.message)]);
    args.extend(args![wait.map(|w| &w.unblocked_by), wait.map(|w| w.since)]);
    args.extend(args![u.step_at, u.deadline, u.error, u.output, commit.now]);
    match tx.execute(COMMIT, args).await? {
        0 => Err(StoreError::Stale { what: "task" }),
        _ => Ok(()),
    }
}

async fn insert_record(tx: &mut Tx, id: TaskId, version: u64, line: &TaskStepRecord) -> Result<()> {
    let sql = "INSERT INTO task_steps
            (task_id, version, step, outcome, message, source, took_ms, at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let TaskStepRecord {
        step,
        outcome,
        message,
        source,
        took_ms,
        at,
        ..
    } = line;
    let args = args![id, version, step, outcome, message, source, took_ms, at];
    tx.execute(sql, args).await.map(drop)
}

async fn release_locks(tx: &mut Tx, commit: &StepCommit) -> Result<()> {
    lock::release_all(tx, commit.task_id, commit.now).await?;
    let sql = "UPDATE tasks SET has_locks = 0 WHERE id = $1";
    tx.execute(sql, args![commit.task_id]).await.map(drop)
}

/// Makes a task due that is about to wait although what it waits for came while its step ran.
async fn end_wait_if_over(tx: &mut Tx, commit: &StepCommit) -> Result<()> {
    let waits_for_lock = commit
        .update
        .wait
        .as_ref()
        .is_some_and(|wait| wait.reason == lock::LOCK_HELD);
    let is_over = signal::has_unseen(tx, commit.task_id).await?
        || (waits_for_lock && !lock::is_waiting(tx, commit.task_id).await?);
    if is_over {
        let sql = "UPDATE tasks SET run_at = $2 WHERE id = $1 AND run_at > $2";
        tx.execute(sql, args![commit.task_id, commit.now]).await?;
    }
    Ok(())
}

async fn commit_in(tx: &mut Tx, commit: &StepCommit) -> Result<u64> {
    update(tx, commit).await?;
    let version = commit.version + 1;
    if let Some(line) = &commit.record {
        insert_record(tx, commit.task_id, version, line).await?;
    }
    for one in &commit.writes {
        write::apply(tx, one, commit.task_id, commit.now).await?;
    }
    let state = commit.update.state;
    if commit.update.release_locks || state.is_ended() {
        release_locks(tx, commit).await?;
    }
    if state.is_ended() {
        let sql = "DELETE FROM signals WHERE task_id = $1";
        tx.execute(sql, args![commit.task_id]).await?;
    }
    if state.is_ended() || state == TaskState::Stuck {
        // Whoever asked for the task waits for its end.
        tx.wake();
    }
    if state == TaskState::Ready {
        end_wait_if_over(tx, commit).await?;
        tx.wake();
    }
    Ok(version)
}

impl Store {
    /// Enqueues a task.
    pub async fn insert_task(&self, task: &Task) -> Result<()> {
        transact!(self, tx => insert(&mut tx, task).await)
    }

    /// Enqueues a task of an instance unless another one of it has not ended; gives whether it did.
    pub async fn insert_task_if_idle(&self, id: InstanceId, task: &Task) -> Result<bool> {
        transact!(self, tx => {
            if !unended(&mut tx, id).await?.is_empty() {
                return Ok(false);
            }
            insert(&mut tx, task).await.map(|()| true)
        })
    }

    /// Enqueues a task with what it needs and only it may read: both are written, or neither.
    pub async fn insert_sealed_task(&self, task: &Task, secret: &StoredSecret) -> Result<()> {
        transact!(self, tx => {
            secret::put(&mut tx, secret).await?;
            insert(&mut tx, task).await
        })
    }

    /// Takes up to `limit` tasks that are due, the most urgent first, and gives them as they are
    /// after the claim: running, owned by `worker`, version and lease one higher. The time that a
    /// task was due and nobody claimed it does not count as its step's.
    pub async fn claim_tasks(&self, worker: &str, now: Timestamp, limit: u32) -> Result<Vec<Task>> {
        let rows = self
            .db()
            .execute_returning(CLAIM, args![worker, now, limit])
            .await?;
        let mut tasks = rows.iter().map(task).collect::<Result<Vec<Task>>>()?;
        tasks.sort_by_key(|task| (std::cmp::Reverse(task.priority), task.run_at, task.id));
        if !tasks.is_empty() {
            self.see_signals(&tasks).await?;
        }
        Ok(tasks)
    }

    /// All running tasks; a worker watches their leases to find those whose owner is gone.
    pub async fn list_running(&self) -> Result<Vec<RunningTask>> {
        let sql = "SELECT id, owner, version, lease FROM tasks WHERE state = 'running'
            ORDER BY id";
        let running = |row| {
            let mut row = Reader::new(row, "tasks");
            Ok(RunningTask {
                id: row.parse("id")?,
                owner: row.text("owner")?,
                version: row.number("version")?,
                lease: row.number("lease")?,
            })
        };
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(running)
            .collect()
    }

    /// Takes a running task over if neither its version nor its lease moved since it was seen. The
    /// time since it was last claimed or committed does not count as its step's.
    pub async fn steal_task(
        &self,
        seen: &RunningTask,
        worker: &str,
        now: Timestamp,
    ) -> Result<Option<Task>> {
        let args = args![seen.id, seen.version, seen.lease, worker, now];
        let rows = self.db().execute_returning(STEAL, args).await?;
        rows.first().map(task).transpose()
    }

    /// Moves the lease of a task; `false` when it is no longer the worker's.
    pub async fn renew_lease(&self, id: TaskId, version: u64, owner: &str) -> Result<bool> {
        let sql = "UPDATE tasks SET lease = lease + 1
            WHERE id = $1 AND version = $2 AND owner = $3 AND state = 'running'";
        Ok(self.db().execute(sql, args![id, version, owner]).await? > 0)
    }

    /// Commits the end of a step and gives the task's new version; `Stale` when the task is no
    /// longer the worker's at this version, and then nothing is written.
    pub async fn commit_step(&self, commit: &StepCommit) -> Result<u64> {
        transact!(self, tx => commit_in(&mut tx, commit).await)
    }

    /// The task with this id.
    pub async fn find_task(&self, id: TaskId) -> Result<Option<Task>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(task).transpose()
    }

    /// All tasks of an instance, oldest first.
    pub async fn list_tasks(&self, instance_id: InstanceId) -> Result<Vec<Task>> {
        let sql = select!("WHERE instance_id = $1 ORDER BY created_at, id");
        self.db()
            .fetch_all(sql, args![instance_id])
            .await?
            .iter()
            .map(task)
            .collect()
    }

    /// The task of an instance that has not ended; of several, the most urgent, then the newest.
    pub async fn find_active_task(&self, instance_id: InstanceId) -> Result<Option<Task>> {
        let sql = select!(
            "WHERE instance_id = $1 AND state NOT IN ('done', 'failed', 'cancelled') \
             ORDER BY priority DESC, created_at DESC, id DESC LIMIT 1"
        );
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        row.as_ref().map(task).transpose()
    }

    /// The newest task of an instance, ended or not.
    pub async fn find_newest_task(&self, instance_id: InstanceId) -> Result<Option<Task>> {
        let sql = select!("WHERE instance_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1");
        let row = self.db().fetch_optional(sql, args![instance_id]).await?;
        row.as_ref().map(task).transpose()
    }

    /// The last `limit` lines of a task's history, oldest first.
    pub async fn list_last_history(
        &self,
        task_id: TaskId,
        limit: u32,
    ) -> Result<Vec<TaskStepRecord>> {
        let sql = "SELECT task_id, version, step, outcome, message, source, took_ms, at
            FROM task_steps WHERE task_id = $1 ORDER BY version DESC LIMIT $2";
        let rows = self.db().fetch_all(sql, args![task_id, limit]).await?;
        rows.iter().rev().map(record).collect()
    }

    /// The history of a task, oldest first.
    pub async fn list_history(&self, task_id: TaskId) -> Result<Vec<TaskStepRecord>> {
        let sql = "SELECT task_id, version, step, outcome, message, source, took_ms, at
            FROM task_steps WHERE task_id = $1 ORDER BY version";
        self.db()
            .fetch_all(sql, args![task_id])
            .await?
            .iter()
            .map(record)
            .collect()
    }

    /// Workflow, step and input of every task that has not ended. Read from a store of whatever
    /// schema: these columns were there from the first.
    pub async fn list_open_tasks(&self) -> Result<Vec<OpenTask>> {
        let sql = "SELECT id, workflow, step, input FROM tasks
            WHERE state NOT IN ('done', 'failed', 'cancelled') ORDER BY id";
        let open = |row| {
            let mut row = Reader::new(row, "tasks");
            Ok(OpenTask {
                id: row.parse("id")?,
                workflow: row.text("workflow")?,
                step: row.text("step")?,
                input: row.text("input")?,
            })
        };
        let rows = self.db().fetch_all(sql, args![]).await?;
        rows.iter().map(open).collect()
    }

    /// Moves what tasks wait for and have to end by, because the clock was set by `by_ms`. Several
    /// processes of one host notice the same jump: only the first of them moves anything. Gives
    /// whether this one did.
    pub async fn shift_tasks(&self, by_ms: i64, now: Timestamp) -> Result<bool> {
        transact!(self, tx => {
            let sql = "SELECT value FROM settings WHERE name = $1";
            let known = tx.fetch_optional(sql, args![CLOCK_SET]).await?;
            let known = known.map(|row| Reader::new(&row, "settings").text("value"));
            if known.transpose()?.is_some_and(|text| is_same_jump(&text, by_ms, now)) {
                return Ok(false);
            }
            let sql = "INSERT INTO settings (name, value) VALUES ($1, $2)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            let text = format!("{} {by_ms}", now.micros());
            tx.execute(sql, args![CLOCK_SET, text]).await?;
            let sql = "UPDATE tasks SET run_at = run_at + $1, step_at = step_at + $1,
                    deadline = deadline + $1, wait_since = wait_since + $1,
                    updated_at = updated_at + $1
                WHERE state NOT IN ('done', 'failed', 'cancelled')";
            tx.execute(sql, args![by_ms * 1_000]).await?;
            tx.wake();
            Ok(true)
        })
    }

    /// Gives a running task back before its next step: it is ready at once, with its locks. `false`
    /// when it is no longer the worker's.
    pub async fn hand_back(
        &self,
        id: TaskId,
        version: u64,
        owner: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let sql = "UPDATE tasks SET state = 'ready', owner = NULL, version = version + 1,
                lease = lease + 1, run_at = $4
            WHERE id = $1 AND version = $2 AND owner = $3 AND state = 'running'";
        let given = self
            .db()
            .execute(sql, args![id, version, owner, now])
            .await?
            > 0;
        if given {
            self.wake().await?;
        }
        Ok(given)
    }

    /// Makes tasks ready again that have been stuck since `before`: perhaps a worker knows their
    /// step by now. The time until then does not count as that step's. Gives how many.
    pub async fn revive_stuck(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let sql = concat!(
            "UPDATE tasks SET state = 'ready', run_at = $2, ",
            not_lain_about!("$2", "updated_at"),
            " WHERE state = 'stuck' AND updated_at <= $1"
        );
        let revived = self.db().execute(sql, args![before, now]).await?;
        if revived > 0 {
            self.wake().await?;
        }
        Ok(revived)
    }

    /// How the last tasks of this workflow on this instance ended, the latest first; at most
    /// `limit`, with when each ended. Those that have not ended are left out.
    pub async fn list_ends(
        &self,
        instance_id: InstanceId,
        workflow: &str,
        limit: u32,
    ) -> Result<Vec<(TaskState, Timestamp)>> {
        let sql = "SELECT id, state, updated_at FROM tasks
            WHERE instance_id = $1 AND workflow = $2 AND state IN ('done', 'failed', 'cancelled')
            ORDER BY created_at DESC, id DESC LIMIT $3";
        let end = |row| {
            let mut row = Reader::at(row, "tasks", 1);
            Ok((row.parse("state")?, row.time("updated_at")?))
        };
        let rows = self
            .db()
            .fetch_all(sql, args![instance_id, workflow, limit]);
        rows.await?.iter().map(end).collect()
    }

    /// When the next ready task is due; may be in the past.
    pub async fn next_due(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT run_at FROM tasks WHERE state = 'ready' ORDER BY run_at LIMIT 1";
        let row = self.db().fetch_optional(sql, args![]).await?;
        row.as_ref()
            .map(|row| Reader::new(row, "tasks").time("run_at"))
            .transpose()
    }
}

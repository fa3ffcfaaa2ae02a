//! Signals: durable requests to tasks.
//!
//! A signal that comes between a claim and the commit that waits must end that wait. So a signal
//! is unseen until a claim sees it, and a commit that finds an unseen one makes the task due.

use coffer_core::event::Event;
use coffer_core::id::{InstanceId, TaskId};
use coffer_core::task::{Signal, Task};
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Tx, transact};
use crate::store::Store;
use crate::{event, task};

/// Tells a task something, unless it has ended.
pub(crate) async fn send(
    tx: &mut Tx,
    task_id: TaskId,
    signal: Signal,
    now: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO signals (task_id, signal, is_seen, at)
        SELECT id, $2, 0, $3 FROM tasks
        WHERE id = $1 AND state NOT IN ('done', 'failed', 'cancelled')
        ON CONFLICT (task_id, signal) DO UPDATE SET is_seen = 0, at = excluded.at";
    tx.execute(sql, args![task_id, signal, now]).await?;
    // A stuck task is looked at again, so that a delete does not wait for it for ever.
    let sql = "UPDATE tasks SET run_at = $2, state = 'ready' WHERE id = $1
        AND (state = 'stuck' OR (state = 'ready' AND run_at > $2))";
    tx.execute(sql, args![task_id, now]).await?;
    tx.wake();
    Ok(())
}

/// Whether something was told to the task since it was claimed.
pub(crate) async fn has_unseen(tx: &mut Tx, task_id: TaskId) -> Result<bool> {
    let sql = "SELECT signal FROM signals WHERE task_id = $1 AND is_seen = 0 LIMIT 1";
    Ok(tx.fetch_optional(sql, args![task_id]).await?.is_some())
}

/// Forgets a signal.
pub(crate) async fn clear(tx: &mut Tx, task_id: TaskId, signal: Signal) -> Result<()> {
    let sql = "DELETE FROM signals WHERE task_id = $1 AND signal = $2";
    tx.execute(sql, args![task_id, signal]).await.map(drop)
}

impl Store {
    /// Tells a task something; if it waits, it is due at once. A signal that arrives while a step
    /// runs ends the wait that the step is about to commit. Ignored by a task that has ended;
    /// `NotFound` when there is no such task.
    pub async fn insert_signal(
        &self,
        task_id: TaskId,
        signal: Signal,
        now: Timestamp,
    ) -> Result<()> {
        transact!(self, tx => {
            let sql = "SELECT id FROM tasks WHERE id = $1";
            if tx.fetch_optional(sql, args![task_id]).await?.is_none() {
                return Err(StoreError::NotFound { what: "task" });
            }
            send(&mut tx, task_id, signal, now).await
        })
    }

    /// Tells every task of an instance to stop and undo; one that stands still because its step is
    /// not known gets another turn, in which it is given up. Gives their number.
    pub async fn cancel_tasks(
        &self,
        instance_id: InstanceId,
        event: &Event,
        now: Timestamp,
    ) -> Result<usize> {
        transact!(self, tx => {
            let tasks = task::unended(&mut tx, instance_id).await?;
            for &id in &tasks {
                send(&mut tx, id, Signal::Cancel, now).await?;
                let sql = "UPDATE tasks SET state = 'ready', run_at = $2
                    WHERE id = $1 AND state = 'stuck'";
                tx.execute(sql, args![id, now]).await?;
            }
            if !tasks.is_empty() {
                event::insert(&mut tx, event).await?;
            }
            Ok(tasks.len())
        })
    }

    /// What a task was told and has not cleared.
    pub async fn list_signals(&self, task_id: TaskId) -> Result<Vec<Signal>> {
        let sql = "SELECT signal FROM signals WHERE task_id = $1 ORDER BY signal";
        let rows = self.db().fetch_all(sql, args![task_id]).await?;
        rows.iter()
            .map(|row| Reader::new(row, "signals").parse("signal"))
            .collect()
    }

    /// Forgets a signal; succeeds when absent.
    pub async fn clear_signal(&self, task_id: TaskId, signal: Signal) -> Result<()> {
        let sql = "DELETE FROM signals WHERE task_id = $1 AND signal = $2";
        self.db()
            .execute(sql, args![task_id, signal])
            .await
            .map(drop)
    }

    /// Marks what the claimed tasks were told as seen; called before their workers read it.
    pub(crate) async fn see_signals(&self, claimed: &[Task]) -> Result<()> {
        let sql = "SELECT DISTINCT task_id FROM signals WHERE is_seen = 0";
        for row in self.db().fetch_all(sql, args![]).await? {
            let id: TaskId = Reader::new(&row, "signals").parse("task_id")?;
            if claimed.iter().any(|task| task.id == id) {
                let sql = "UPDATE signals SET is_seen = 1 WHERE task_id = $1 AND is_seen = 0";
                self.db().execute(sql, args![id]).await?;
            }
        }
        Ok(())
    }
}

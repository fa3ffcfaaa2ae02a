//! Turns what a step answered into the one commit that says so.

use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{Task, TaskState, TaskStepRecord, Wait};
use coffer_core::time::Timestamp;
use coffer_store::Write;
use coffer_store::task::{StepCommit, TaskUpdate};

use crate::workflow::{Failure, Outcome, StepPolicy, Stepped, WaitFor};

/// Longest time between two tries of a failing step; unit: milliseconds.
const BACKOFF_MS_MAX: u64 = 30_000;

/// Longest time between two looks at what a step waits for; unit: milliseconds.
const LOOK_MS_MAX: i64 = 2_000;
/// A step that has waited for long looks after this part of that time again, so that it neither
/// notices late nor looks thousands of times.
const LOOK_PART: i64 = 16;

/// What the runtime knows when it commits.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) task: &'a Task,
    pub(super) worker: &'a str,
    pub(super) policy: StepPolicy,
    pub(super) now: Timestamp,
    pub(super) took_ms: i64,
}

impl Commit<'_> {
    /// The commit of a step's outcome. An `Unwind` must have been resolved to a step before.
    pub(super) fn stepped(&self, stepped: Stepped<String>) -> StepCommit {
        let source = format!("{}:{}", stepped.source.file(), stepped.source.line());
        let (update, outcome, message) = match stepped.outcome {
            Outcome::Next(step) => (self.enter(step), "next", String::new()),
            Outcome::Wait(wait) => {
                let message = wait.message.clone();
                (self.wait(wait), "wait", message)
            }
            Outcome::Done => (self.end(TaskState::Done), "done", String::new()),
            Outcome::Unwind(failure) => (self.fail(&failure), "unwind", failure.message),
            Outcome::Failed => (
                self.end(TaskState::Failed),
                "failed",
                self.task.error.clone().unwrap_or_default(),
            ),
        };
        self.build(update, stepped.writes, outcome, message, source)
    }

    /// The commit that enters the first undo step, in a turn of its own: a call of what is being
    /// undone may have outlived its limit, and must not come after its undoing.
    pub(super) fn unwind(&self, undo: String, failure: &Failure, source: String) -> StepCommit {
        let mut update = self.enter(undo);
        update.error = Some(failure.message.clone());
        let message = format!("{} ({})", failure.message, failure.details);
        let turn = self.task.instance_id.map(Write::CountTurn);
        let writes = turn.into_iter().collect();
        self.build(update, writes, "unwind", message, source)
    }

    /// The commit that ends the task at once, with nothing to undo.
    pub(super) fn give_up(&self, failure: &Failure, source: String) -> StepCommit {
        let message = format!("{} ({})", failure.message, failure.details);
        self.build(self.fail(failure), Vec::new(), "failed", message, source)
    }

    /// The commit that ends a task which cannot be undone: its instance fails with it.
    pub(super) fn abandon(&self, failure: &Failure) -> StepCommit {
        let fault = Fault {
            message: format!("{}; delete the instance", failure.message),
            details: failure.details.clone(),
            at: self.now,
        };
        let failed = self
            .task
            .instance_id
            .map(|instance_id| Write::SetLifecycle {
                instance_id,
                lifecycle: Lifecycle::Failed,
                fault: Some(fault),
            });
        let writes = failed.into_iter().collect();
        let message = failure.message.clone();
        self.build(
            self.fail(failure),
            writes,
            "abandoned",
            message,
            String::new(),
        )
    }

    /// The commit that tries the same step again later.
    pub(super) fn retry(&self, failure: &Failure) -> StepCommit {
        let attempt = self.task.attempt + 1;
        let backoff_ms = (50u64 << attempt.min(10)).min(BACKOFF_MS_MAX);
        let mut update = self.wait(WaitFor {
            after_ms: backoff_ms,
            reason: "step.retry",
            message: failure.message.clone(),
            unblocked_by: "the next try".to_owned(),
        });
        update.attempt = attempt;
        let message = format!("{} ({})", failure.message, failure.details);
        self.build(update, Vec::new(), "retry", message, String::new())
    }

    /// The commit that ends the task because something else took over.
    pub(super) fn cancelled(&self, message: &str) -> StepCommit {
        let update = self.end(TaskState::Cancelled);
        self.build(
            update,
            Vec::new(),
            "cancelled",
            message.to_owned(),
            String::new(),
        )
    }

    /// The commit that stops a task whose step this binary does not know.
    pub(super) fn stuck(&self, why: &str) -> StepCommit {
        let mut update = self.end(TaskState::Stuck);
        update.release_locks = false;
        update.error = Some(format!(
            "this version of Coffer does not know the task's step: {why}"
        ));
        self.build(update, Vec::new(), "stuck", why.to_owned(), String::new())
    }

    /// Whether the step waits for the same thing as before: that is one line of history.
    fn waits_on(&self, update: &TaskUpdate) -> bool {
        let reason =
            |wait: &Option<Wait>| wait.as_ref().map(|w| (w.reason.clone(), w.message.clone()));
        update.wait.is_some() && reason(&update.wait) == reason(&self.task.wait)
    }

    fn build(
        &self,
        update: TaskUpdate,
        writes: Vec<Write>,
        outcome: &str,
        message: String,
        source: String,
    ) -> StepCommit {
        let record = TaskStepRecord {
            version: self.task.version + 1,
            step: self.task.step.clone(),
            outcome: outcome.to_owned(),
            message,
            source,
            took_ms: self.took_ms,
            at: self.now,
        };
        StepCommit {
            task_id: self.task.id,
            version: self.task.version,
            owner: self.worker.to_owned(),
            record: (!self.waits_on(&update)).then_some(record),
            update,
            writes,
            now: self.now,
        }
    }

    /// The same step, as it stands.
    fn same(&self, state: TaskState) -> TaskUpdate {
        TaskUpdate {
            step: self.task.step.clone(),
            state,
            attempt: self.task.attempt,
            run_at: self.now,
            wait: None,
            step_at: self.task.step_at,
            deadline: self.task.deadline,
            error: self.task.error.clone(),
            output: None,
            release_locks: false,
        }
    }

    fn enter(&self, step: String) -> TaskUpdate {
        TaskUpdate {
            step,
            attempt: 0,
            step_at: self.now,
            deadline: None,
            ..self.same(TaskState::Running)
        }
    }

    fn wait(&self, wait: WaitFor) -> TaskUpdate {
        let since = match &self.task.wait {
            Some(before) if before.reason == wait.reason => before.since,
            _ => self.now,
        };
        let asked_ms = i64::try_from(wait.after_ms).unwrap_or(i64::MAX);
        let waited_ms = self.now.millis_since(since);
        let after_ms = asked_ms.max((waited_ms / LOOK_PART).min(LOOK_MS_MAX));
        TaskUpdate {
            run_at: self.now.plus_millis(after_ms),
            wait: Some(Wait {
                reason: wait.reason.to_owned(),
                message: wait.message,
                unblocked_by: wait.unblocked_by,
                since,
            }),
            deadline: self.deadline(),
            ..self.same(TaskState::Ready)
        }
    }

    /// When the present step has to have ended.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.policy.deadline_seconds?;
        Some(self.task.step_at.plus_seconds(i64::from(seconds)))
    }

    fn fail(&self, failure: &Failure) -> TaskUpdate {
        TaskUpdate {
            error: Some(failure.message.clone()),
            ..self.end(TaskState::Failed)
        }
    }

    fn end(&self, state: TaskState) -> TaskUpdate {
        TaskUpdate {
            release_locks: true,
            deadline: None,
            ..self.same(state)
        }
    }
}

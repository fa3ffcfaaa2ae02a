//! The runtime of workflows: claim, lease, lock, run one step, commit, and so on.
//!
//! Everything a task is lies in the store; a worker that dies leaves a lease that others see
//! unmoved. Outcome, history and the step's own writes are one transaction, compared with the
//! task's version, so a worker that wakes from a pause can commit nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::id::TaskId;
use coffer_core::task::{Signal, Task, TaskState};
use coffer_core::time::Timestamp;
use coffer_store::lock::{Acquire, LockOutcome};
use coffer_store::task::StepCommit;
use coffer_store::{StoreError, Write};
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;

use super::commit::Commit;
use super::lease::LeaseWatch;
use super::steady::Steady;
use crate::limits;
use crate::services::{Guard, Services, Verdict};
use crate::supervise::Supervisor;
use crate::workflow::{
    self, AnyWorkflow, Context, Failure, Outcome, StepError, StepPolicy, Stepped, WaitFor,
};

/// Why a worker let go of a task before a commit said so.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed; the task is no longer in hand, so that the next claim takes it again.
    #[error("run task: {0}")]
    Store(String),
    /// Another worker has the task.
    #[error("run task: the lease was lost")]
    LeaseLost,
    /// The simulated process died.
    #[error("run task: crashed")]
    Crashed,
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale { .. } => Self::LeaseLost,
            other => Self::Store(format!("{other:?}")),
        }
    }
}

/// One worker of the task manager.
#[derive(Debug)]
pub struct Worker {
    services: Services,
    name: String,
    watch: Mutex<LeaseWatch>,
    in_hand: Mutex<HashMap<TaskId, InHand>>,
    /// The time that deadlines are compared with.
    steady: Steady,
    /// Held to write while stored times are set with the clock, and to read while one is committed.
    setting: RwLock<()>,
    /// Cancelled when no further step is to begin.
    stopping: CancellationToken,
}

/// A task that this worker runs or is about to run.
#[derive(Debug, Clone, Copy)]
struct InHand {
    /// Its version as it was claimed.
    version: u64,
    /// Monotonic time from which its lease counts.
    since: Duration,
    /// By how much the clock had been set when its times were right; unit: milliseconds.
    set_ms: i64,
}

impl Worker {
    /// A worker; `name` is unique among all workers on the store, over restarts too.
    pub fn new(services: Services, name: String) -> Self {
        let steady = Steady::new(&*services.clock);
        Self {
            services,
            name,
            steady,
            setting: RwLock::default(),
            watch: Mutex::new(LeaseWatch::default()),
            in_hand: Mutex::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// The same, which begins no further step once the token is cancelled: a task in hand comes to
    /// its next commit and is given back for another worker to take at once.
    #[must_use]
    pub fn stopping_with(mut self, token: CancellationToken) -> Self {
        self.stopping = token;
        self
    }

    /// Runs tasks until told to stop; then lets those in hand come to their next commit.
    ///
    /// `inherited` are tasks taken over before.
    pub async fn run(self: Arc<Self>, supervisor: Supervisor, mut inherited: Vec<Task>) {
        let token = supervisor.token();
        let slots = Arc::new(Semaphore::new(self.services.tuning.tasks_at_once));
        let mut wakeups = self.services.store.subscribe();
        while !token.is_cancelled() {
            let free = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
            let claimed = if free == 0 {
                Ok(Vec::new())
            } else {
                self.claim(free).await
            };
            let has_failed = claimed.is_err();
            let mut claimed = claimed.unwrap_or_else(|error| {
                tracing::error!(%error, "claim tasks");
                Vec::new()
            });
            claimed.append(&mut inherited);
            for task in claimed {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let worker = Arc::clone(&self);
                supervisor.start("task", async move {
                    worker.run_logged(task).await;
                    drop(slot);
                });
            }
            // A store that cannot be written would be asked without a pause for what is due.
            let pause = match has_failed {
                true => limits::CLAIM_RETRY,
                false => self.pause().await,
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = wakeups.wait() => {}
                () = self.services.clock.sleep(pause) => {}
            }
        }
    }

    /// How long until the next task is due, at most the safety net's period.
    async fn pause(&self) -> Duration {
        // Over a restored state nothing is taken, however long it has been due.
        if self.services.store.is_restored().await.unwrap_or(true) {
            return limits::POLL_SAFETY_NET;
        }
        let due = self.services.store.next_due().await.ok().flatten();
        let Some(due) = due else {
            return limits::POLL_SAFETY_NET;
        };
        let ms = due.millis_since(self.now());
        let ms = Duration::from_millis(u64::try_from(ms).unwrap_or(0) + 1);
        ms.min(limits::POLL_SAFETY_NET)
    }

    /// Claims what is due and takes over what nobody works on: what dead workers left, and what
    /// this one let go of because the store failed. Never more than `limit` tasks, because a lease
    /// that waits for a free slot ends. None over a restored state that nobody has confirmed: what
    /// its tasks were to do was done or undone since.
    pub async fn claim(&self, limit: u32) -> Result<Vec<Task>, RunError> {
        if self.services.store.is_restored().await? {
            return Ok(Vec::new());
        }
        self.follow_clock().await?;
        let begun = self.services.clock.monotonic();
        let now = self.now();
        let claimed = self.services.store.claim_tasks(&self.name, now, limit);
        let mut tasks = claimed.await?;
        self.take_in_hand(&tasks, begun);
        let free = usize::try_from(limit).unwrap_or(usize::MAX);
        if let Err(error) = self.take_over(&mut tasks, free).await {
            tracing::error!(%error, "take over lost tasks");
        }
        Ok(tasks)
    }

    fn now(&self) -> Timestamp {
        self.steady.now(&*self.services.clock)
    }

    /// When somebody has set the clock, what tasks wait for and have to end by is set with it.
    async fn follow_clock(&self) -> Result<(), RunError> {
        let clock = &*self.services.clock;
        let Some(by_ms) = self.steady.jump_ms(clock) else {
            return Ok(());
        };
        tracing::warn!(
            by_ms,
            "the clock was set: waits and deadlines of tasks are set with it"
        );
        let _setting = self.setting.write().await;
        self.services.store.shift_tasks(by_ms, clock.now()).await?;
        self.steady.follow(clock, by_ms);
        Ok(())
    }

    /// Adds lost tasks until there are `limit`; what was taken before an error stays.
    async fn take_over(&self, tasks: &mut Vec<Task>, limit: usize) -> Result<(), RunError> {
        let store = &self.services.store;
        let (own, others): (Vec<_>, Vec<_>) = store
            .list_running()
            .await?
            .into_iter()
            .partition(|one| one.owner == self.name);
        // A task that ended meanwhile has another version by now, and is not taken.
        let dropped = own.into_iter().filter(|one| !self.is_in_hand(one.id));
        let monotonic = self.services.clock.monotonic();
        let lost = self
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .observe(&others, monotonic, self.lease());
        for one in dropped.chain(lost) {
            if tasks.len() >= limit {
                break;
            }
            let begun = self.services.clock.monotonic();
            let taken = store.steal_task(&one, &self.name, self.now());
            if let Some(task) = taken.await? {
                tracing::warn!(task_id = %one.id, owner = %one.owner, "take over a lost task");
                self.take_in_hand(std::slice::from_ref(&task), begun);
                tasks.push(task);
            }
        }
        Ok(())
    }

    /// How long a lease may stand still before it counts as lost.
    fn lease(&self) -> Duration {
        if self.services.breaks(Guard::LeaseUnmoved) {
            Duration::ZERO
        } else {
            self.services.tuning.lease
        }
    }

    /// Takes over at once whatever another worker held: only for a process that knows itself
    /// alone on the store, because it holds the state directory's lock.
    pub async fn take_over_all(&self) -> Result<Vec<Task>, RunError> {
        let mut tasks = Vec::new();
        if self.services.store.is_restored().await? {
            return Ok(tasks);
        }
        for one in self.services.store.list_running().await? {
            let begun = self.services.clock.monotonic();
            let store = &self.services.store;
            let stolen = store.steal_task(&one, &self.name, self.now()).await?;
            self.take_in_hand(stolen.as_slice(), begun);
            tasks.extend(stolen);
        }
        Ok(tasks)
    }

    fn hand(&self) -> MutexGuard<'_, HashMap<TaskId, InHand>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes tasks whose leases were moved at some time after `since`.
    fn take_in_hand(&self, tasks: &[Task], since: Duration) {
        let mut hand = self.hand();
        for task in tasks {
            let held = InHand {
                version: task.version,
                since,
                set_ms: self.steady.set_ms(),
            };
            hand.insert(task.id, held);
        }
    }

    fn is_in_hand(&self, id: TaskId) -> bool {
        self.hand().contains_key(&id)
    }

    /// Lets go of a task, unless it was claimed again meanwhile.
    fn let_go(&self, id: TaskId, version: u64) {
        let mut hand = self.hand();
        if hand.get(&id).is_some_and(|held| held.version == version) {
            hand.remove(&id);
        }
    }

    async fn run_logged(&self, task: Task) {
        let (id, workflow) = (task.id, task.workflow.clone());
        match self.run_task(task).await {
            Ok(()) => {}
            Err(RunError::LeaseLost) => {
                tracing::warn!(task_id = %id, workflow, "lease lost, another worker goes on");
            }
            Err(error) => {
                tracing::error!(task_id = %id, workflow, %error, "run task");
            }
        }
    }

    /// Runs a claimed task, step after step, until it waits or ends.
    pub async fn run_task(&self, task: Task) -> Result<(), RunError> {
        let (id, version) = (task.id, task.version);
        let ended = self.run_steps(task).await;
        self.let_go(id, version);
        ended
    }

    async fn run_steps(&self, mut task: Task) -> Result<(), RunError> {
        // Claimed by another worker, or by this one again since: it is not this copy that is held.
        let held = self.hand().get(&task.id).copied();
        let held = held.filter(|held| held.version == task.version);
        let held = held.ok_or(RunError::LeaseLost)?;
        let (renewed, mut set_ms) = (Mutex::new(held.since), held.set_ms);
        loop {
            let (mut commit, next) = self.decide(&mut task, &renewed, &mut set_ms).await?;
            match self.fault(Point::BeforeCommit, &task).await {
                Verdict::Go => {}
                Verdict::Crash => return Err(RunError::Crashed),
                Verdict::StoreFails => return Err(RunError::Store("simulated".to_owned())),
            }
            if let Some(chaos) = &self.services.chaos {
                chaos.spoil(&mut commit);
            }
            let setting = self.setting.read().await;
            shift(&mut commit, self.set_since(&mut set_ms));
            let version = self.services.store.commit_step(&commit).await?;
            drop(setting);
            tell(&task, &commit);
            if self.fault(Point::AfterCommit, &task).await == Verdict::Crash {
                return Err(RunError::Crashed);
            }
            if !next {
                return Ok(());
            }
            apply(&mut task, commit, version);
            if self.stopping.is_cancelled() {
                let store = &self.services.store;
                let given = store.hand_back(task.id, task.version, &self.name, self.now());
                given.await?;
                return Ok(());
            }
        }
    }

    async fn fault(&self, point: Point, task: &Task) -> Verdict {
        match (&self.services.chaos, point) {
            (None, _) => Verdict::Go,
            (Some(chaos), Point::BeforeCommit) => chaos.before_commit(task).await,
            (Some(chaos), Point::AfterCommit) => chaos.after_commit(task).await,
        }
    }

    /// By how much the clock was set since the times of a task in hand were right; they are then.
    fn set_since(&self, set_ms: &mut i64) -> i64 {
        let now = self.steady.set_ms();
        now - std::mem::replace(set_ms, now)
    }

    /// Sets the times of a task in hand with the clock, if that was set since they were right.
    fn catch_up(&self, task: &mut Task, set_ms: &mut i64) {
        let by_ms = self.set_since(set_ms);
        let set = |time: &mut Timestamp| *time = time.plus_millis(by_ms);
        set(&mut task.step_at);
        task.deadline.iter_mut().for_each(set);
        task.wait.iter_mut().for_each(|wait| set(&mut wait.since));
    }

    /// Runs one step and answers its commit, and whether the task goes on at once.
    async fn decide(
        &self,
        task: &mut Task,
        renewed: &Mutex<Duration>,
        set_ms: &mut i64,
    ) -> Result<(StepCommit, bool), RunError> {
        let started = self.services.clock.monotonic();
        self.catch_up(task, set_ms);
        let workflow = workflow::workflow(&task.workflow);
        let signals = self.signals(task, workflow).await?;
        if signals.contains(&Signal::Delete) && !self.services.breaks(Guard::DeleteFirst) {
            let why = "the object is being deleted; the delete cleans up";
            return Ok((self.commit(task, started).cancelled(why), false));
        }
        let Some(workflow) = workflow else {
            return Ok((self.commit(task, started).stuck("no such workflow"), false));
        };
        if let Some(wait) = self.lock(task, workflow).await? {
            return Ok((wait, false));
        }
        // Only with the locks: undoing touches what they protect.
        if signals.contains(&Signal::Cancel)
            && let Some(undone) = self.cancelled(&self.commit(task, started), workflow)
        {
            return Ok(undone);
        }
        let context = Context {
            services: &self.services,
            task,
            worker: &self.name,
            renewed,
        };
        let answer = workflow.run(&context).await;
        self.catch_up(task, set_ms);
        self.conclude(task, workflow, answer, started)
    }

    /// What the task was told, whether or not its workflow is known here.
    async fn signals(
        &self,
        task: &Task,
        workflow: Option<&dyn AnyWorkflow>,
    ) -> Result<Vec<Signal>, RunError> {
        if workflow.is_some_and(AnyWorkflow::preempts) {
            return Ok(Vec::new());
        }
        Ok(self.services.store.list_signals(task.id).await?)
    }

    /// Takes the task's locks before its first step.
    async fn lock(
        &self,
        task: &Task,
        workflow: &dyn AnyWorkflow,
    ) -> Result<Option<StepCommit>, RunError> {
        if task.has_locks || self.services.breaks(Guard::Locks) {
            return Ok(None);
        }
        let locks = match workflow.task_locks(task) {
            Ok(locks) => locks,
            Err(_) => {
                let commit = self.commit(task, self.services.clock.monotonic());
                return Ok(Some(commit.stuck("its input cannot be read")));
            }
        };
        let ask = Acquire {
            task_id: task.id,
            version: task.version,
            owner: &self.name,
            locks: &locks,
            preempt: workflow.preempts(),
            now: self.now(),
        };
        match self.services.store.acquire_locks(&ask).await? {
            LockOutcome::Acquired => Ok(None),
            LockOutcome::Blocked { by, workflow } => {
                let wait = WaitFor {
                    after_ms: 1_000,
                    reason: "lock.held",
                    message: format!("{workflow} (task {by}) has to end first"),
                    unblocked_by: format!("task {by}"),
                };
                let commit = self.commit(task, self.services.clock.monotonic());
                let mut blocked = commit.stepped(Stepped::wait(wait));
                // Its first step has not begun.
                (blocked.update.step_at, blocked.update.deadline) = (blocked.now, None);
                Ok(Some(blocked))
            }
        }
    }

    fn commit<'a>(&'a self, task: &'a Task, started: Duration) -> Commit<'a> {
        let took = self.services.clock.monotonic().saturating_sub(started);
        let policy = workflow::workflow(&task.workflow)
            .and_then(|w| w.task_policy(task).ok())
            .unwrap_or(StepPolicy::forever());
        Commit {
            task,
            worker: &self.name,
            policy: self.policy(policy),
            now: self.now(),
            took_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// The policy as it is; simulation can break it.
    fn policy(&self, policy: StepPolicy) -> StepPolicy {
        let mut policy = policy;
        if self.services.breaks(Guard::NeverGivenUp) && policy.retries.is_none() {
            policy = StepPolicy::within(60);
        }
        if self.services.breaks(Guard::Deadline) {
            policy.deadline_seconds = None;
        }
        policy
    }

    fn give_up(
        &self,
        commit: &Commit<'_>,
        workflow: &dyn AnyWorkflow,
        failure: &Failure,
        source: String,
    ) -> (StepCommit, bool) {
        let undo = if self.services.breaks(Guard::Undo) {
            Ok(None)
        } else {
            workflow.task_undo(commit.task)
        };
        match undo {
            Ok(Some(undo)) => (commit.unwind(undo, failure, source), true),
            Ok(None) => (commit.give_up(failure, source), false),
            Err(_) => (commit.stuck("its step cannot be read"), false),
        }
    }

    /// What becomes of a task that was told to stop; `None` when it is undoing already.
    fn cancelled(
        &self,
        commit: &Commit<'_>,
        workflow: &dyn AnyWorkflow,
    ) -> Option<(StepCommit, bool)> {
        let failure = Failure {
            message: "it was cancelled on request".to_owned(),
            details: "the status was reset".to_owned(),
        };
        let (mut undone, goes_on) = match workflow.task_undo(commit.task) {
            Ok(None) if commit.policy.retries.is_none() => return None,
            Ok(_) => self.give_up(commit, workflow, &failure, String::new()),
            // Nobody knows how to undo it: the instance is left to its delete.
            Err(_) => (commit.abandon(&failure), false),
        };
        undone.writes.push(Write::ClearSignal(Signal::Cancel));
        Some((undone, goes_on))
    }

    fn conclude(
        &self,
        task: &Task,
        workflow: &dyn AnyWorkflow,
        answer: Result<Stepped<String>, StepError>,
        started: Duration,
    ) -> Result<(StepCommit, bool), RunError> {
        let commit = self.commit(task, started);
        let stepped = match answer {
            Ok(stepped) => stepped,
            Err(StepError::Retry(failure)) => {
                return Ok(if is_spent(&commit) {
                    self.give_up(&commit, workflow, &failure, String::new())
                } else {
                    (commit.retry(&failure), false)
                });
            }
            Err(StepError::Fatal(failure)) if commit.policy.retries.is_none() => {
                return Ok((commit.retry(&failure), false));
            }
            Err(StepError::Fatal(failure)) => {
                return Ok(self.give_up(&commit, workflow, &failure, String::new()));
            }
            Err(StepError::LeaseLost) => return Err(RunError::LeaseLost),
            Err(StepError::Crashed) => return Err(RunError::Crashed),
            Err(StepError::Store { why }) => return Err(RunError::Store(why)),
            Err(StepError::Unknown { why }) => return Ok((commit.stuck(&why), false)),
        };
        let source = format!("{}:{}", stepped.source.file(), stepped.source.line());
        match &stepped.outcome {
            Outcome::Unwind(failure) => Ok(self.give_up(&commit, workflow, failure, source)),
            Outcome::Wait(wait) if is_late(&commit) => {
                let failure = late(&commit, wait);
                Ok(self.give_up(&commit, workflow, &failure, source))
            }
            Outcome::Next(_) => Ok((commit.stepped(stepped), true)),
            Outcome::Wait(_) | Outcome::Done | Outcome::Failed => {
                Ok((commit.stepped(stepped), false))
            }
        }
    }
}

enum Point {
    BeforeCommit,
    AfterCommit,
}

/// A line of the log for what is a line of the task's history.
fn tell(task: &Task, commit: &StepCommit) {
    let Some(record) = &commit.record else {
        return;
    };
    tracing::debug!(
        task_id = %task.id,
        instance_id = task.instance_id.map(tracing::field::display),
        workflow = task.workflow,
        step = record.step,
        outcome = record.outcome,
        took_ms = record.took_ms,
        "step committed"
    );
}

/// Sets a commit's times with the clock, which was set by this much since it was made.
fn shift(commit: &mut StepCommit, by_ms: i64) {
    if by_ms == 0 {
        return;
    }
    let set = |time: &mut Timestamp| *time = time.plus_millis(by_ms);
    let update = &mut commit.update;
    for time in [&mut commit.now, &mut update.run_at, &mut update.step_at] {
        set(time);
    }
    update.deadline.iter_mut().for_each(set);
    update.wait.iter_mut().for_each(|wait| set(&mut wait.since));
    commit.record.iter_mut().for_each(|line| set(&mut line.at));
}

/// The task in memory as the commit left it in the store.
fn apply(task: &mut Task, commit: StepCommit, version: u64) {
    task.version = version;
    task.step = commit.update.step;
    task.attempt = commit.update.attempt;
    task.wait = commit.update.wait;
    task.step_at = commit.update.step_at;
    task.deadline = commit.update.deadline;
    task.error = commit.update.error;
    task.has_locks = true;
    debug_assert_eq!(commit.update.state, TaskState::Running);
}

fn is_spent(commit: &Commit<'_>) -> bool {
    let tries = commit
        .policy
        .retries
        .is_some_and(|max| commit.task.attempt >= max);
    tries || is_late(commit)
}

fn is_late(commit: &Commit<'_>) -> bool {
    commit
        .deadline()
        .is_some_and(|deadline| commit.now >= deadline)
}

fn late(commit: &Commit<'_>, wait: &WaitFor) -> Failure {
    let seconds = commit.policy.deadline_seconds.unwrap_or(0);
    let step = step_name(&commit.task.step);
    Failure {
        message: format!(
            "step {step} did not end within {seconds} s: {}",
            wait.message
        ),
        details: format!("{} to be ended by {}", wait.reason, wait.unblocked_by),
    }
}

/// The name of a stored step, for people.
pub(crate) fn step_name(step: &str) -> String {
    serde_json::from_str::<serde_json::Value>(step)
        .ok()
        .and_then(|v| v.get("step").and_then(|s| s.as_str()).map(str::to_owned))
        .unwrap_or_else(|| step.to_owned())
}

//! Workflows: one file each, read top to bottom as the story of what happens to a database.
//!
//! A workflow is an enum of steps. A step may run twice and may stop anywhere; it returns what it
//! wants written and never commits. The runtime (`taskmanager::runtime`) commits outcome, history
//! and writes in one transaction by compare-and-set.

mod context;
pub mod create_instance;
pub mod delete_instance;
mod outcome;
mod parts;
pub mod recover_instance;
pub mod restart_instance;
pub mod run_commands;
pub mod update_access;

use std::fmt::Debug;

use async_trait::async_trait;
use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, TaskId, TenantId};
use coffer_core::task::{LockRequest, Task, TaskState};
use coffer_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::Context;
pub use outcome::{Failure, Outcome, StepError, StepResult, Stepped, WaitFor};

/// The list of workflows: one line each.
pub fn registry() -> &'static [&'static dyn AnyWorkflow] {
    &[
        &create_instance::CreateInstance,
        &delete_instance::DeleteInstance,
        &recover_instance::RecoverInstance,
        &restart_instance::RestartInstance,
        &run_commands::RunCommands,
        &update_access::UpdateAccess,
    ]
}

/// The workflow of this name.
pub fn workflow(name: &str) -> Option<&'static dyn AnyWorkflow> {
    registry().iter().copied().find(|one| one.name() == name)
}

/// How long and how often a step is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPolicy {
    /// Seconds from entering the step until it is given up; `None`: never.
    pub deadline_seconds: Option<u32>,
    /// Failed tries before it is given up; `None`: no limit.
    pub retries: Option<u32>,
}

impl StepPolicy {
    /// Given up after `seconds`, or after 20 failed tries.
    pub const fn within(seconds: u32) -> Self {
        Self {
            deadline_seconds: Some(seconds),
            retries: Some(20),
        }
    }

    /// Never given up: undoing and deleting have to end some day.
    pub const fn forever() -> Self {
        Self {
            deadline_seconds: None,
            retries: None,
        }
    }
}

/// One kind of durable work.
#[async_trait]
pub trait Workflow: Send + Sync + Debug + 'static {
    /// Its name in the store.
    const NAME: &'static str;
    /// Whether it makes holders of its locks stop.
    const PREEMPTS: bool = false;
    /// What it is given: ids and request data, never whole objects.
    type Input: Serialize + DeserializeOwned + Send + Sync;
    /// Its steps.
    type Step: Serialize + DeserializeOwned + Send + Sync + Clone + Debug + PartialEq;

    /// The locks it needs, in any order.
    fn locks(&self, input: &Self::Input) -> Vec<LockRequest>;

    /// How long and how often a step is tried.
    fn policy(&self, step: &Self::Step) -> StepPolicy;

    /// Where undoing begins when `step` is given up; `None`: there is nothing to undo.
    fn undo(&self, step: &Self::Step) -> Option<Self::Step>;

    /// Runs one step.
    async fn step(
        &self,
        context: &Context<'_>,
        input: &Self::Input,
        step: Self::Step,
    ) -> StepResult<Self::Step>;
}

/// A workflow without its types, as the runtime sees it. Steps are JSON text.
#[async_trait]
pub trait AnyWorkflow: Send + Sync + Debug {
    /// Its name in the store.
    fn name(&self) -> &'static str;

    /// Whether it makes holders of its locks stop.
    fn preempts(&self) -> bool;

    /// The locks that this task needs, in the order they are taken.
    fn task_locks(&self, task: &Task) -> Result<Vec<LockRequest>, StepError>;

    /// The policy of the task's present step.
    fn task_policy(&self, task: &Task) -> Result<StepPolicy, StepError>;

    /// The step that undoing begins with.
    fn task_undo(&self, task: &Task) -> Result<Option<String>, StepError>;

    /// Runs the task's present step.
    async fn run(&self, context: &Context<'_>) -> Result<Stepped<String>, StepError>;
}

#[async_trait]
impl<W: Workflow> AnyWorkflow for W {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn preempts(&self) -> bool {
        W::PREEMPTS
    }

    fn task_locks(&self, task: &Task) -> Result<Vec<LockRequest>, StepError> {
        let mut locks = self.locks(&decode(&task.input)?);
        locks.sort();
        locks.dedup();
        Ok(locks)
    }

    fn task_policy(&self, task: &Task) -> Result<StepPolicy, StepError> {
        Ok(self.policy(&decode(&task.step)?))
    }

    fn task_undo(&self, task: &Task) -> Result<Option<String>, StepError> {
        Ok(self.undo(&decode(&task.step)?).map(|step| encode(&step)))
    }

    async fn run(&self, context: &Context<'_>) -> Result<Stepped<String>, StepError> {
        let input = decode(&context.task.input)?;
        let step = decode(&context.task.step)?;
        let stepped = self.step(context, &input, step).await?;
        Ok(stepped.map(|step| encode(&step)))
    }
}

/// JSON text of a step or input.
pub fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("steps and inputs are plain data, which always serialises")
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, StepError> {
    serde_json::from_str(text).map_err(|e| StepError::Unknown { why: e.to_string() })
}

/// What every new task has beside its workflow's input.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Project it works for.
    pub tenant_id: TenantId,
    /// Instance it works on.
    pub instance_id: InstanceId,
    /// Who asked.
    pub actor: Actor,
    /// When.
    pub now: Timestamp,
}

impl NewTask {
    /// The stored task of workflow `W` with this input and first step.
    fn build<W: Workflow>(self, input: &W::Input, first: &W::Step, priority: i64) -> Task {
        Task {
            id: self.id,
            tenant_id: self.tenant_id,
            instance_id: Some(self.instance_id),
            workflow: W::NAME.to_owned(),
            input: encode(input),
            step: encode(first),
            state: TaskState::Ready,
            version: 1,
            owner: None,
            lease: 0,
            attempt: 0,
            run_at: self.now,
            priority,
            has_locks: false,
            wait: None,
            step_at: self.now,
            deadline: None,
            error: None,
            output: None,
            actor: self.actor,
            created_at: self.now,
            updated_at: self.now,
        }
    }
}

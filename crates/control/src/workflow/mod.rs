//! Workflows: one file each, read top to bottom as the story of what happens to a database.
//!
//! A workflow is an enum of steps. A step may run twice and may stop anywhere; it returns what it
//! wants written and never commits. The runtime (`taskmanager::runtime`) commits outcome, history
//! and writes in one transaction by compare-and-set.

#![warn(clippy::wildcard_enum_match_arm)]

mod context;
pub mod create_instance;
pub mod delete_instance;
mod outcome;
mod parts;
pub mod recover_instance;
pub mod renew_certificates;
pub mod replace_agent;
pub mod restart_instance;
pub mod run_commands;
pub mod start_instance;
pub mod stop_instance;
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
        &renew_certificates::RenewCertificates,
        &replace_agent::ReplaceAgent,
        &restart_instance::RestartInstance,
        &run_commands::RunCommands,
        &start_instance::StartInstance,
        &stop_instance::StopInstance,
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
    /// Every step, in the order of the story; data in one is an example.
    const STEPS: &'static [Self::Step];

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

/// A step without its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// As tasks in flight hold it: JSON text.
    pub stored: String,
    /// How long and how often it is tried.
    pub policy: StepPolicy,
    /// Where undoing begins when it is given up.
    pub undo: Option<String>,
}

/// A workflow without its types, as the runtime sees it. Steps are JSON text.
#[async_trait]
pub trait AnyWorkflow: Send + Sync + Debug {
    /// Its name in the store.
    fn name(&self) -> &'static str;

    /// Whether it makes holders of its locks stop.
    fn preempts(&self) -> bool;

    /// Every step, in the order of the story.
    fn steps(&self) -> Vec<StepInfo>;

    /// The locks that this task needs, in the order they are taken.
    fn task_locks(&self, task: &Task) -> Result<Vec<LockRequest>, StepError>;

    /// Why a stored step or input cannot be read; `None` if they can.
    fn unknown(&self, step: &str, input: &str) -> Option<String>;

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

    fn steps(&self) -> Vec<StepInfo> {
        let info = |step: &W::Step| StepInfo {
            stored: encode(step),
            policy: self.policy(step),
            undo: self.undo(step).map(|undo| encode(&undo)),
        };
        W::STEPS.iter().map(info).collect()
    }

    fn task_locks(&self, task: &Task) -> Result<Vec<LockRequest>, StepError> {
        let mut locks = self.locks(&decode(&task.input)?);
        locks.sort();
        locks.dedup();
        Ok(locks)
    }

    fn unknown(&self, step: &str, input: &str) -> Option<String> {
        let name = W::NAME;
        if decode::<W::Step>(step).is_err() {
            return Some(format!("workflow '{name}' has no step {step}"));
        }
        let input = decode::<W::Input>(input);
        input
            .is_err()
            .then(|| format!("workflow '{name}' cannot read its input"))
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

/// Why this build could not go on with a stored task; `None` if it could.
pub fn unknown(name: &str, step: &str, input: &str) -> Option<String> {
    match workflow(name) {
        None => Some(format!("there is no workflow '{name}'")),
        Some(known) => known.unknown(step, input),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that tasks in flight hold. One that changes here needs a migration of stored
    /// tasks; a new one is added where its step stands in the story.
    const STORED: &[(&str, &[&str])] = &[
        (
            "create_instance",
            &[
                r#"{"step":"ensure_network"}"#,
                r#"{"step":"ensure_volume"}"#,
                r#"{"step":"ensure_endpoint"}"#,
                r#"{"step":"ensure_server"}"#,
                r#"{"step":"enrol_guest"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"create_content","index":0}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"undo_endpoint"}"#,
                r#"{"step":"undo_server"}"#,
                r#"{"step":"undo_volume"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "delete_instance",
            &[
                r#"{"step":"delete_endpoint"}"#,
                r#"{"step":"delete_server"}"#,
                r#"{"step":"delete_volume"}"#,
                r#"{"step":"delete_network"}"#,
                r#"{"step":"finish"}"#,
            ],
        ),
        (
            "recover_instance",
            &[
                r#"{"step":"ensure_volume"}"#,
                r#"{"step":"ensure_server"}"#,
                r#"{"step":"ensure_endpoint"}"#,
                r#"{"step":"enrol_guest"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "renew_certificates",
            &[
                r#"{"step":"enrol_guest"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "replace_agent",
            &[
                r#"{"step":"send_binary","round":0}"#,
                r#"{"step":"replace","round":0}"#,
                r#"{"step":"await_agent"}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "restart_instance",
            &[
                r#"{"step":"ensure_server"}"#,
                r#"{"step":"ensure_endpoint"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"restart","version":1}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "run_commands",
            &[
                r#"{"step":"check"}"#,
                r#"{"step":"run","index":0}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "start_instance",
            &[
                r#"{"step":"ensure_volume"}"#,
                r#"{"step":"ensure_server"}"#,
                r#"{"step":"ensure_endpoint"}"#,
                r#"{"step":"enrol_guest"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "stop_instance",
            &[
                r#"{"step":"stop_server"}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
        (
            "update_access",
            &[
                r#"{"step":"ensure_endpoint"}"#,
                r#"{"step":"push_spec"}"#,
                r#"{"step":"await_engine","version":1}"#,
                r#"{"step":"finish"}"#,
                r#"{"step":"restore_endpoint"}"#,
                r#"{"step":"mark_failed"}"#,
            ],
        ),
    ];

    #[test]
    fn stored_steps_keep_their_names() {
        let names = |workflow: &&dyn AnyWorkflow| {
            let steps = workflow.steps().into_iter();
            (workflow.name(), steps.map(|step| step.stored).collect())
        };
        let steps: Vec<(&str, Vec<String>)> = registry().iter().map(names).collect();
        let stored: Vec<_> = STORED
            .iter()
            .map(|(name, steps)| (*name, steps.iter().map(|&s| s.to_owned()).collect()))
            .collect::<Vec<(&str, Vec<String>)>>();
        assert_eq!(steps, stored);
    }
}

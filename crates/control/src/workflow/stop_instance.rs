//! The story of a stop: the server ends after its engine has stopped cleanly, and the instance
//! stays so until somebody starts it, whatever happens to Coffer or to the host. Its volume,
//! addresses and quota stay its own.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use serde::{Deserialize, Serialize};

use super::parts;
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Stops an instance.
#[derive(Debug)]
pub struct StopInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The server does not run, its volume is clean.
    StopServer,
    /// The instance is SHUTDOWN and stays so.
    Finish,
    /// The instance is ACTIVE as far as Coffer goes, and says what is wrong; it is wanted running,
    /// so the conductor has it recovered.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &StopInstanceInput) -> Task {
    new.build::<StopInstance>(input, &Step::StopServer, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for StopInstance {
    const NAME: &'static str = "stop_instance";
    type Input = StopInstanceInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[Step::StopServer, Step::Finish, Step::MarkFailed];

    fn locks(&self, input: &StopInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::StopServer => StepPolicy::within(300),
            Step::Finish | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::StopServer | Step::Finish => Some(Step::MarkFailed),
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &StopInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::StopServer => parts::stop_server(context, &graph)
                .await?
                .then(Step::Finish),
            Step::Finish => {
                let words = "stopped on request; it stays so until it is started";
                let event = context.event("instance.stopped", Severity::Info, words);
                let is = set(input, Lifecycle::Stopped, None);
                Stepped::done(vec![is, event])
            }
            Step::MarkFailed => {
                let error = context.task.error.clone().unwrap_or_default();
                let event = context.event("instance.stop_failed", Severity::Error, error.clone());
                let fault = Fault {
                    details: error.clone(),
                    message: error,
                    at: context.now(),
                };
                let is = set(input, Lifecycle::Active, Some(fault));
                Stepped::failed(vec![is, event])
            }
        })
    }
}

fn set(input: &StopInstanceInput, lifecycle: Lifecycle, fault: Option<Fault>) -> Write {
    Write::SetLifecycle {
        instance_id: input.instance_id,
        lifecycle,
        fault,
    }
}

//! The story of a change of access: the endpoint is published, restricted or taken back, and the
//! engine gets a certificate that names where it is reached now.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use serde::{Deserialize, Serialize};

use super::parts;
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Changes an instance's access. The instance's row already says what is asked.
#[derive(Debug)]
pub struct UpdateAccess;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateAccessInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The endpoint is as asked.
    EnsureEndpoint,
    /// The guest has a certificate for it.
    PushSpec,
    /// The guest has applied it.
    AwaitEngine {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// The instance is at rest.
    Finish,
    /// The endpoint is again as it was; one whose address is not to be had again is closed.
    RestoreEndpoint,
    /// The instance is at rest and says what is wrong.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &UpdateAccessInput) -> Task {
    new.build::<UpdateAccess>(input, &Step::EnsureEndpoint, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for UpdateAccess {
    const NAME: &'static str = "update_access";
    type Input = UpdateAccessInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::EnsureEndpoint,
        Step::PushSpec,
        Step::AwaitEngine { version: 1 },
        Step::Finish,
        Step::RestoreEndpoint,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &UpdateAccessInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnsureEndpoint | Step::PushSpec => StepPolicy::within(60),
            Step::AwaitEngine { .. } => StepPolicy::within(180),
            Step::Finish | Step::RestoreEndpoint | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::EnsureEndpoint | Step::PushSpec | Step::AwaitEngine { .. } | Step::Finish => {
                Some(Step::RestoreEndpoint)
            }
            Step::RestoreEndpoint | Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &UpdateAccessInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::EnsureEndpoint => parts::ensure_endpoint(context, &graph)
                .await?
                .then(Step::PushSpec),
            Step::PushSpec => match parts::push_spec(context, &graph).await? {
                Ok(version) => Stepped::next(Step::AwaitEngine { version }, Vec::new()),
                Err(part) => part.then(Step::PushSpec),
            },
            Step::AwaitEngine { version } => parts::await_healthy(context, &graph, version)
                .await?
                .then(Step::Finish),
            Step::Finish => {
                let event = context.event("instance.access_updated", Severity::Info, "as asked");
                Stepped::done(vec![set_active(input, None), event])
            }
            Step::RestoreEndpoint => parts::restore_endpoint(context, &graph)
                .await?
                .then(Step::MarkFailed),
            Step::MarkFailed => {
                let error = context.task.error.clone().unwrap_or_default();
                let event = context.event("instance.access_failed", Severity::Error, error.clone());
                let fault = Fault {
                    details: error.clone(),
                    message: error,
                    at: context.now(),
                };
                Stepped::failed(vec![set_active(input, Some(fault)), event])
            }
        })
    }
}

fn set_active(input: &UpdateAccessInput, fault: Option<Fault>) -> Write {
    Write::SetLifecycle {
        instance_id: input.instance_id,
        lifecycle: Lifecycle::Active,
        fault,
    }
}

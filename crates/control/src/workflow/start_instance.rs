//! The story of a start: everything that a stop and a reboot of the host may have taken away is
//! made again, and the instance is ACTIVE when its engine answers.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use serde::{Deserialize, Serialize};

use super::parts::{self, Part};
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Starts an instance that was stopped on request.
#[derive(Debug)]
pub struct StartInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The volume is where the server can use it.
    EnsureVolume,
    /// The server runs.
    EnsureServer,
    /// The endpoint leads to it.
    EnsureEndpoint,
    /// The guest's key is signed and pinned.
    EnrolGuest,
    /// The guest knows what should be.
    PushSpec,
    /// The engine answers a real commit.
    AwaitEngine {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// The instance is ACTIVE.
    Finish,
    /// The instance is ACTIVE as far as Coffer goes, and says what is wrong; it is wanted running,
    /// so the conductor has it recovered.
    /// An endpoint that was led on the way, and not noted, leads as noted again, or nowhere.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &StartInstanceInput) -> Task {
    new.build::<StartInstance>(input, &Step::EnsureVolume, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for StartInstance {
    const NAME: &'static str = "start_instance";
    type Input = StartInstanceInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::EnsureVolume,
        Step::EnsureServer,
        Step::EnsureEndpoint,
        Step::EnrolGuest,
        Step::PushSpec,
        Step::AwaitEngine { version: 1 },
        Step::Finish,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &StartInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnsureVolume | Step::EnsureServer => StepPolicy::within(300),
            Step::EnsureEndpoint | Step::EnrolGuest | Step::PushSpec => StepPolicy::within(60),
            // The engine may have to go through its log first.
            Step::AwaitEngine { .. } => StepPolicy::within(900),
            Step::Finish | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::EnsureVolume
            | Step::EnsureServer
            | Step::EnsureEndpoint
            | Step::EnrolGuest
            | Step::PushSpec
            | Step::AwaitEngine { .. }
            | Step::Finish => Some(Step::MarkFailed),
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &StartInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::EnsureVolume => parts::ensure_volume(context, &graph)
                .await?
                .then(Step::EnsureServer),
            Step::EnsureServer => parts::ensure_server(context, &graph)
                .await?
                .then(Step::EnsureEndpoint),
            Step::EnsureEndpoint => parts::ensure_endpoint(context, &graph)
                .await?
                .then(Step::EnrolGuest),
            Step::EnrolGuest => parts::enrol(context, &graph).await?.then(Step::PushSpec),
            Step::PushSpec => match parts::push_spec(context, &graph).await? {
                Ok(version) => Stepped::next(Step::AwaitEngine { version }, Vec::new()),
                Err(part) => part.then(Step::PushSpec),
            },
            Step::AwaitEngine { version } => parts::await_healthy(context, &graph, version)
                .await?
                .then(Step::Finish),
            Step::Finish => {
                let event = context.event("instance.started", Severity::Info, "started on request");
                Stepped::done(vec![set_active(input, None), event])
            }
            Step::MarkFailed => match parts::settle_endpoint(context, &graph).await? {
                Part::Waiting(wait) => Stepped::wait(wait),
                Part::Ready(_) => {
                    let error = context.task.error.clone().unwrap_or_default();
                    let event =
                        context.event("instance.start_failed", Severity::Error, error.clone());
                    let fault = Fault {
                        details: error.clone(),
                        message: error,
                        at: context.now(),
                    };
                    Stepped::failed(vec![set_active(input, Some(fault)), event])
                }
            },
        })
    }
}

fn set_active(input: &StartInstanceInput, fault: Option<Fault>) -> Write {
    Write::SetLifecycle {
        instance_id: input.instance_id,
        lifecycle: Lifecycle::Active,
        fault,
    }
}

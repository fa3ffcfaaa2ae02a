//! The story of a restart: the server is made to run if it does not, the engine is restarted
//! once, and the instance is ACTIVE again when it answers.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use coffer_wire::guest::v1::Operation;
use serde::{Deserialize, Serialize};

use super::parts::{self, Part};
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Restarts an instance's engine.
#[derive(Debug)]
pub struct RestartInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestartInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The server runs.
    EnsureServer,
    /// The endpoint leads to it.
    EnsureEndpoint,
    /// The guest knows what should be.
    PushSpec,
    /// The engine was restarted.
    Restart {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// The engine answers a real commit.
    AwaitEngine {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// The instance is ACTIVE.
    Finish,
    /// The instance is ACTIVE as far as Coffer goes, and says what is wrong.
    /// An endpoint that was led on the way, and not noted, leads as noted again, or nowhere.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &RestartInstanceInput) -> Task {
    new.build::<RestartInstance>(input, &Step::EnsureServer, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for RestartInstance {
    const NAME: &'static str = "restart_instance";
    type Input = RestartInstanceInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::EnsureServer,
        Step::EnsureEndpoint,
        Step::PushSpec,
        Step::Restart { version: 1 },
        Step::AwaitEngine { version: 1 },
        Step::Finish,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &RestartInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnsureServer => StepPolicy::within(300),
            Step::EnsureEndpoint | Step::PushSpec => StepPolicy::within(60),
            Step::Restart { .. } | Step::AwaitEngine { .. } => StepPolicy::within(300),
            Step::Finish | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::EnsureServer
            | Step::EnsureEndpoint
            | Step::PushSpec
            | Step::Restart { .. }
            | Step::AwaitEngine { .. }
            | Step::Finish => Some(Step::MarkFailed),
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &RestartInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::EnsureServer => parts::ensure_server(context, &graph)
                .await?
                .then(Step::EnsureEndpoint),
            Step::EnsureEndpoint => parts::ensure_endpoint(context, &graph)
                .await?
                .then(Step::PushSpec),
            Step::PushSpec => match parts::push_spec(context, &graph).await? {
                Ok(version) => Stepped::next(Step::Restart { version }, Vec::new()),
                Err(part) => part.then(Step::PushSpec),
            },
            Step::Restart { version } => parts::run_command(context, &graph, 0, Operation::Restart)
                .await?
                .then(Step::AwaitEngine { version }),
            Step::AwaitEngine { version } => parts::await_healthy(context, &graph, version)
                .await?
                .then(Step::Finish),
            Step::Finish => {
                let event = context.event("instance.restarted", Severity::Info, "restarted");
                Stepped::done(vec![set_active(input, None), event])
            }
            Step::MarkFailed => match parts::settle_endpoint(context, &graph).await? {
                Part::Waiting(wait) => Stepped::wait(wait),
                Part::Ready(_) => {
                    let error = context.task.error.clone().unwrap_or_default();
                    let event =
                        context.event("instance.restart_failed", Severity::Error, error.clone());
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

fn set_active(input: &RestartInstanceInput, fault: Option<Fault>) -> Write {
    Write::SetLifecycle {
        instance_id: input.instance_id,
        lifecycle: Lifecycle::Active,
        fault,
    }
}

//! The story of an instance whose server was lost: after a reboot of its host, or when its
//! sandbox died. Server, endpoint and spec are made again; the volume and its data stay.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use serde::{Deserialize, Serialize};

use super::parts::{self, Part};
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Recovers an instance's server.
#[derive(Debug)]
pub struct RecoverInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecoverInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
    /// What was found, in words.
    pub cause: String,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The volume is attached where the server can use it.
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
    /// The history says so.
    Finish,
    /// The history says that it failed; the conductor will ask again.
    /// An endpoint that was led on the way, and not noted, leads as noted again, or nowhere.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &RecoverInstanceInput) -> Task {
    new.build::<RecoverInstance>(input, &Step::EnsureVolume, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for RecoverInstance {
    const NAME: &'static str = "recover_instance";
    type Input = RecoverInstanceInput;
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

    fn locks(&self, input: &RecoverInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnsureVolume | Step::EnsureServer => StepPolicy::within(300),
            Step::EnsureEndpoint | Step::EnrolGuest | Step::PushSpec => StepPolicy::within(60),
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
        input: &RecoverInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            // Somebody stopped it before this task had the instance to itself.
            Step::EnsureVolume if !graph.instance.lifecycle.wants_server() => {
                Stepped::done(Vec::new())
            }
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
                let message = format!("the instance is in service again after: {}", input.cause);
                let event = context.event("instance.recovered", Severity::Warning, message);
                Stepped::done(vec![event])
            }
            Step::MarkFailed => match parts::settle_endpoint(context, &graph).await? {
                Part::Waiting(wait) => Stepped::wait(wait),
                Part::Ready(_) => {
                    let error = context.task.error.as_deref().unwrap_or("no cause");
                    let message = format!("the instance could not be recovered: {error}");
                    let event = context.event("instance.recover_failed", Severity::Error, message);
                    Stepped::failed(vec![event])
                }
            },
        })
    }
}

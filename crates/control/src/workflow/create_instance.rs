//! The story of a new instance: network, volume, endpoint, server, guest, engine, content.
//!
//! The API has written every row (planned) and charged the quota before this begins, so that
//! whatever is made can be found again. When it fails, what was made is undone and the instance
//! stays in ERROR with the reason until the tenant deletes it.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SecretId, SetId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use serde::{Deserialize, Serialize};

use super::parts::{self, Part};
use super::{Context, NewTask, StepError, StepPolicy, StepResult, Stepped, Workflow};
use crate::vault;

/// Creates an instance.
#[derive(Debug)]
pub struct CreateInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
    /// Sealed JSON list of the commands that make its databases and users.
    pub commands_secret: Option<SecretId>,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The tenant network is there.
    EnsureNetwork,
    /// The data volume is there, a clone of the template.
    EnsureVolume,
    /// The endpoint leads to the server to come, which so starts with all of its addresses.
    EnsureEndpoint,
    /// The server runs.
    EnsureServer,
    /// The guest's key is signed and pinned.
    EnrolGuest,
    /// The guest knows what should be.
    PushSpec,
    /// The engine answers a real commit.
    AwaitEngine {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// Databases and users are made, one command after the other.
    CreateContent {
        /// Which command.
        index: usize,
    },
    /// The store knows what the engine holds; the instance is ACTIVE.
    Finish,
    /// The endpoint's addresses are taken away again.
    UndoEndpoint,
    /// The server is deleted again.
    UndoServer,
    /// The volume is deleted again.
    UndoVolume,
    /// The instance is in ERROR and says why.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &CreateInstanceInput) -> Task {
    new.build::<CreateInstance>(input, &Step::EnsureNetwork, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for CreateInstance {
    const NAME: &'static str = "create_instance";
    type Input = CreateInstanceInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::EnsureNetwork,
        Step::EnsureVolume,
        Step::EnsureEndpoint,
        Step::EnsureServer,
        Step::EnrolGuest,
        Step::PushSpec,
        Step::AwaitEngine { version: 1 },
        Step::CreateContent { index: 0 },
        Step::Finish,
        Step::UndoEndpoint,
        Step::UndoServer,
        Step::UndoVolume,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &CreateInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnsureNetwork | Step::EnsureEndpoint | Step::Finish => StepPolicy::within(60),
            Step::EnsureVolume | Step::EnsureServer => StepPolicy::within(300),
            Step::EnrolGuest | Step::PushSpec => StepPolicy::within(60),
            Step::AwaitEngine { .. } | Step::CreateContent { .. } => StepPolicy::within(180),
            Step::UndoEndpoint | Step::UndoServer | Step::UndoVolume | Step::MarkFailed => {
                StepPolicy::forever()
            }
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::EnsureNetwork
            | Step::EnsureVolume
            | Step::EnsureEndpoint
            | Step::EnsureServer
            | Step::EnrolGuest
            | Step::PushSpec
            | Step::AwaitEngine { .. }
            | Step::CreateContent { .. }
            | Step::Finish => Some(Step::UndoEndpoint),
            Step::UndoEndpoint | Step::UndoServer | Step::UndoVolume | Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &CreateInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::EnsureNetwork => parts::ensure_network(context, &graph)
                .await?
                .then(Step::EnsureVolume),
            Step::EnsureVolume => parts::ensure_volume(context, &graph)
                .await?
                .then(Step::EnsureEndpoint),
            Step::EnsureEndpoint => parts::ensure_endpoint(context, &graph)
                .await?
                .then(Step::EnsureServer),
            Step::EnsureServer => parts::ensure_server(context, &graph)
                .await?
                .then(Step::EnrolGuest),
            Step::EnrolGuest => parts::enrol(context, &graph).await?.then(Step::PushSpec),
            Step::PushSpec => match parts::push_spec(context, &graph).await? {
                Ok(version) => Stepped::next(Step::AwaitEngine { version }, Vec::new()),
                Err(part) => part.then(Step::PushSpec),
            },
            Step::AwaitEngine { version } => parts::await_healthy(context, &graph, version)
                .await?
                .then(Step::CreateContent { index: 0 }),
            Step::CreateContent { index } => create_content(context, input, index).await?,
            Step::Finish => match parts::read_inventory(context, &graph).await? {
                Part::Ready(writes) => finish(context, input, writes),
                waiting @ Part::Waiting(_) => waiting.then(Step::Finish),
            },
            Step::UndoEndpoint => parts::delete_endpoints(context, &graph)
                .await?
                .then(Step::UndoServer),
            Step::UndoServer => parts::delete_servers(context, &graph)
                .await?
                .then(Step::UndoVolume),
            Step::UndoVolume => parts::delete_volumes(context, &graph)
                .await?
                .then(Step::MarkFailed),
            Step::MarkFailed => mark_failed(context, input),
        })
    }
}

async fn create_content(
    context: &Context<'_>,
    input: &CreateInstanceInput,
    index: usize,
) -> Result<Stepped<Step>, StepError> {
    let Some(secret_id) = input.commands_secret else {
        return Ok(Stepped::next(Step::Finish, Vec::new()));
    };
    let commands = vault::open_commands(context.services, secret_id).await?;
    let Some(operation) = commands.into_iter().nth(index) else {
        return Ok(Stepped::next(Step::Finish, Vec::new()));
    };
    let graph = context.graph(input.instance_id).await?;
    let done = parts::run_command(context, &graph, index, operation).await?;
    Ok(done.then(Step::CreateContent { index: index + 1 }))
}

fn finish(
    context: &Context<'_>,
    input: &CreateInstanceInput,
    mut writes: Vec<Write>,
) -> Stepped<Step> {
    writes.push(Write::SetLifecycle {
        instance_id: input.instance_id,
        lifecycle: Lifecycle::Active,
        fault: None,
    });
    writes.extend(input.commands_secret.map(Write::EraseSecret));
    writes.push(context.event(
        "instance.created",
        Severity::Info,
        "the instance is in service",
    ));
    Stepped::done(writes)
}

fn mark_failed(context: &Context<'_>, input: &CreateInstanceInput) -> Stepped<Step> {
    let message = context
        .task
        .error
        .clone()
        .unwrap_or_else(|| "creation failed".to_owned());
    let fault = Fault {
        message: format!("{message}; delete the instance and create it again once it is mended"),
        details: message.clone(),
        at: context.now(),
    };
    let mut writes = vec![
        Write::SetLifecycle {
            instance_id: input.instance_id,
            lifecycle: Lifecycle::Failed,
            fault: Some(fault),
        },
        Write::ReleaseQuota {
            instance_id: input.instance_id,
        },
        context.event("instance.create_failed", Severity::Error, message),
    ];
    writes.extend(input.commands_secret.map(Write::EraseSecret));
    Stepped::failed(writes)
}

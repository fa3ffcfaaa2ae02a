//! The story of an instance's end, from any state: addresses, server, volumes, then every row.
//!
//! It preempts: whatever else works on the instance is signalled to stop first. Its steps are
//! never given up; while one cannot go on, `explain` says what it waits for.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_PREEMPT, Task};
use coffer_infra::ProviderError;
use coffer_infra::provider::Progress;
use coffer_store::Write;
use coffer_store::instance::InstanceGraph;
use serde::{Deserialize, Serialize};

use super::parts;
use super::{Context, NewTask, StepError, StepPolicy, StepResult, Stepped, Workflow};

/// Deletes an instance.
#[derive(Debug)]
pub struct DeleteInstance;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteInstanceInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The endpoint's addresses are taken away.
    DeleteEndpoint,
    /// The server is gone.
    DeleteServer,
    /// The volumes are gone.
    DeleteVolume,
    /// The network is gone from the provider if it has no members.
    DeleteNetwork,
    /// Nothing is left but the history.
    Finish,
}

/// The stored task.
pub fn task(new: NewTask, input: &DeleteInstanceInput) -> Task {
    new.build::<DeleteInstance>(input, &Step::DeleteEndpoint, PRIORITY_PREEMPT)
}

#[async_trait]
impl Workflow for DeleteInstance {
    const NAME: &'static str = "delete_instance";
    const PREEMPTS: bool = true;
    type Input = DeleteInstanceInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::DeleteEndpoint,
        Step::DeleteServer,
        Step::DeleteVolume,
        Step::DeleteNetwork,
        Step::Finish,
    ];

    fn locks(&self, input: &DeleteInstanceInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::DeleteEndpoint
            | Step::DeleteServer
            | Step::DeleteVolume
            | Step::DeleteNetwork
            | Step::Finish => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::DeleteEndpoint
            | Step::DeleteServer
            | Step::DeleteVolume
            | Step::DeleteNetwork
            | Step::Finish => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &DeleteInstanceInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::DeleteEndpoint => parts::delete_endpoints(context, &graph)
                .await?
                .then(Step::DeleteServer),
            Step::DeleteServer => parts::delete_servers(context, &graph)
                .await?
                .then(Step::DeleteVolume),
            Step::DeleteVolume => parts::delete_volumes(context, &graph)
                .await?
                .then(Step::DeleteNetwork),
            Step::DeleteNetwork => delete_network(context, &graph).await?,
            Step::Finish => finish(context, input),
        })
    }
}

/// Other members keep the network; that is no reason to wait.
async fn delete_network(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Stepped<Step>, StepError> {
    let Some(network) = &graph.network else {
        return Ok(Stepped::next(Step::Finish, Vec::new()));
    };
    let provider = &context.services.provider;
    let tolerant = async {
        match provider.delete_network(network.id).await {
            Err(ProviderError::Conflict { .. }) => Ok(Progress::Ready(())),
            other => other,
        }
    };
    match context.provider("delete network", tolerant).await? {
        Progress::Ready(()) => Ok(Stepped::next(Step::Finish, Vec::new())),
        Progress::Pending { .. } => Ok(Stepped::next(Step::Finish, Vec::new())),
    }
}

fn finish(context: &Context<'_>, input: &DeleteInstanceInput) -> Stepped<Step> {
    Stepped::done(vec![
        Write::FinishDelete {
            instance_id: input.instance_id,
            at: context.now(),
        },
        context.event("instance.deleted", Severity::Info, "the instance is gone"),
    ])
}

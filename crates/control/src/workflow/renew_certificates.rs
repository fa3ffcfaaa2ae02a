//! The story of new certificates, long before the old ones end: the guest's own for its link, and
//! the engine's, which it takes without a restart. The instance stays in service.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use serde::{Deserialize, Serialize};

use super::parts;
use super::{Context, NewTask, StepPolicy, StepResult, Stepped, Workflow};

/// Gives an instance in service new certificates.
#[derive(Debug)]
pub struct RenewCertificates;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewCertificatesInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The guest's key is signed anew.
    EnrolGuest,
    /// The guest has the engine's certificate.
    PushSpec,
    /// The engine shows it.
    AwaitEngine {
        /// Spec version the guest has to reach.
        version: u64,
    },
    /// The history says so.
    Finish,
    /// The history says that it failed; it is asked for again.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &RenewCertificatesInput) -> Task {
    new.build::<RenewCertificates>(input, &Step::EnrolGuest, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for RenewCertificates {
    const NAME: &'static str = "renew_certificates";
    type Input = RenewCertificatesInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::EnrolGuest,
        Step::PushSpec,
        Step::AwaitEngine { version: 1 },
        Step::Finish,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &RenewCertificatesInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::EnrolGuest | Step::PushSpec => StepPolicy::within(60),
            Step::AwaitEngine { .. } => StepPolicy::within(180),
            Step::Finish | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::EnrolGuest | Step::PushSpec | Step::AwaitEngine { .. } | Step::Finish => {
                Some(Step::MarkFailed)
            }
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &RenewCertificatesInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            // Somebody stopped it before this task had the instance to itself; a start gives it new
            // ones.
            Step::EnrolGuest if !graph.instance.lifecycle.wants_server() => {
                Stepped::done(Vec::new())
            }
            Step::EnrolGuest => parts::enrol(context, &graph).await?.then(Step::PushSpec),
            Step::PushSpec => match parts::push_spec(context, &graph).await? {
                Ok(version) => Stepped::next(Step::AwaitEngine { version }, Vec::new()),
                Err(part) => part.then(Step::PushSpec),
            },
            Step::AwaitEngine { version } => parts::await_healthy(context, &graph, version)
                .await?
                .then(Step::Finish),
            Step::Finish => {
                let words = "new certificates, long before the old ones end";
                let event = context.event("instance.certified", Severity::Info, words);
                Stepped::done(vec![event])
            }
            Step::MarkFailed => {
                let error = context.task.error.clone().unwrap_or_default();
                let event = context.event("instance.certify_failed", Severity::Warning, error);
                Stepped::failed(vec![event])
            }
        })
    }
}

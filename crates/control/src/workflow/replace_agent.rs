//! The story of another agent in a running instance: its binary goes over the link, the guest's
//! first process starts it and goes back to the one before if it does not serve. The engine is not
//! touched, nor is any client of it.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SetId};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use coffer_store::instance::InstanceGraph;
use coffer_wire::guest::v1::{AGENT_INCOMPLETE, WRONG_OFFSET};
use serde::{Deserialize, Serialize};

use super::parts;
use super::{Context, NewTask, StepError, StepPolicy, StepResult, Stepped, Workflow};
use crate::guest::{AgentBinary, GuestError};
use crate::limits;

/// Gives a guest the agent that this Coffer carries.
#[derive(Debug)]
pub struct ReplaceAgent;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceAgentInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
    /// SHA-256 of the binary, hex.
    pub sha256: String,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The running agent has the whole binary of the next.
    SendBinary {
        /// How often what was sent was lost with the agent that had it.
        round: u32,
    },
    /// The guest's first process has it, and starts it.
    Replace {
        /// As in the step before.
        round: u32,
    },
    /// It serves, and is not on trial any more.
    AwaitAgent,
    /// The link and the history say so.
    Finish,
    /// The history says that it failed; the agent before it serves.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &ReplaceAgentInput) -> Task {
    new.build::<ReplaceAgent>(input, &Step::SendBinary { round: 0 }, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for ReplaceAgent {
    const NAME: &'static str = "replace_agent";
    type Input = ReplaceAgentInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::SendBinary { round: 0 },
        Step::Replace { round: 0 },
        Step::AwaitAgent,
        Step::Finish,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &ReplaceAgentInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::SendBinary { .. } => StepPolicy::within(300),
            Step::Replace { .. } => StepPolicy::within(60),
            Step::AwaitAgent => StepPolicy::within(120),
            Step::Finish | Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::SendBinary { .. } | Step::Replace { .. } | Step::AwaitAgent | Step::Finish => {
                Some(Step::MarkFailed)
            }
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &ReplaceAgentInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        // Whoever stopped it or gave it another server meanwhile made sure of a newer agent: a
        // sandbox is started with the binary that its host has then.
        let is_over = !graph.instance.lifecycle.wants_server();
        match step {
            Step::SendBinary { .. } | Step::Replace { .. } | Step::AwaitAgent if is_over => {
                Ok(Stepped::done(Vec::new()))
            }
            Step::SendBinary { round } => match carried(context, input) {
                Some(agent) => send(context, &graph, &agent, round).await,
                None => Ok(Stepped::done(vec![superseded(context, input)])),
            },
            Step::Replace { round } => replace(context, &graph, &input.sha256, round).await,
            Step::AwaitAgent => await_agent(context, &graph, &input.sha256).await,
            Step::Finish => Ok(Stepped::done(finish(context, &graph, input))),
            Step::MarkFailed => {
                let error = context.task.error.clone().unwrap_or_default();
                let event = context.event("agent.replace_failed", Severity::Warning, error);
                Ok(Stepped::failed(vec![event]))
            }
        }
    }
}

/// The binary that is wanted, if this Coffer carries it.
fn carried(context: &Context<'_>, input: &ReplaceAgentInput) -> Option<Arc<AgentBinary>> {
    let own = context.services.agent.as_ref();
    own.filter(|agent| agent.sha256 == input.sha256).cloned()
}

/// What is said where another Coffer asked, before an upgrade or beside this one: the guest goes on
/// with the agent that it has, and is given this Coffer's when the conductor asks for that.
fn superseded(context: &Context<'_>, input: &ReplaceAgentInput) -> Write {
    let words = format!(
        "the agent was not replaced: this Coffer carries another than was asked for (SHA-256 {})",
        input.sha256
    );
    context.event("agent.replace_superseded", Severity::Info, words)
}

/// Sends what the guest does not have yet, a piece at a time.
async fn send(
    context: &Context<'_>,
    graph: &InstanceGraph,
    agent: &AgentBinary,
    round: u32,
) -> StepResult<Step> {
    let guest = parts::guest_address(context, graph)?;
    let guests = &context.services.guests;
    let mut received = 0;
    while received < agent.length {
        let piece = agent.read(received, limits::AGENT_PIECE_BYTES);
        let piece = piece.map_err(|e| StepError::retry("read the agent's binary", e))?;
        let call = guests.send_agent(&guest, agent, received, &piece);
        let answer = context.guest(call).await?;
        // The agent that had what came before is gone.
        if matches!(&answer, Err(GuestError::Refused { reason, .. }) if reason == WRONG_OFFSET) {
            return again(round);
        }
        let before = received;
        received = match parts::answered("send agent", answer)? {
            Ok(upload) => upload.received,
            Err(waiting) => return Ok(waiting.then(Step::SendBinary { round })),
        };
        if received <= before {
            return again(round);
        }
    }
    Ok(Stepped::next(Step::Replace { round }, Vec::new()))
}

/// What was sent is lost, and sent again, a few times.
fn again(round: u32) -> StepResult<Step> {
    if round >= limits::AGENT_ROUNDS_MAX {
        return Ok(Stepped::unwind(
            "the guest lost again and again what it was sent of the new agent",
            format!("{round} rounds"),
        ));
    }
    let round = round + 1;
    Ok(Stepped::next(Step::SendBinary { round }, Vec::new()))
}

async fn replace(
    context: &Context<'_>,
    graph: &InstanceGraph,
    sha256: &str,
    round: u32,
) -> StepResult<Step> {
    let guest = parts::guest_address(context, graph)?;
    let guests = &context.services.guests;
    let answer = context.guest(guests.replace_agent(&guest, sha256)).await?;
    // The agent that had received it is gone, perhaps because it was replaced and the answer lost:
    // then there is nothing to send, which the next agent says when it is asked for its status.
    if let Err(GuestError::Refused { reason, .. }) = &answer
        && reason == AGENT_INCOMPLETE
    {
        return look(context, graph, sha256, round).await;
    }
    Ok(match parts::answered("replace agent", answer)? {
        Ok(_) => Stepped::next(Step::AwaitAgent, Vec::new()),
        Err(waiting) => waiting.then(Step::Replace { round }),
    })
}

/// Whether an agent without an upload is the wanted one, was refused, or has to be sent it again.
async fn look(
    context: &Context<'_>,
    graph: &InstanceGraph,
    sha256: &str,
    round: u32,
) -> StepResult<Step> {
    let guest = parts::guest_address(context, graph)?;
    let call = context
        .services
        .guests
        .status(&guest, 0, std::time::Duration::ZERO);
    let status = match parts::answered("ask guest", context.guest(call).await?)? {
        Ok(status) => status,
        Err(waiting) => return Ok(waiting.then(Step::Replace { round })),
    };
    let agent = status.agent;
    let is_refused = agent.refused.is_some_and(|one| one.sha256 == sha256);
    Ok(match agent.sha256 {
        Some(own) if own == sha256 => Stepped::next(Step::AwaitAgent, Vec::new()),
        _ if is_refused => Stepped::next(Step::AwaitAgent, Vec::new()),
        Some(_) => return again(round),
        None => parts::guest_wait(
            "agent.starting",
            "the agent does not know its own binary yet",
            limits::POLL_MS,
        )
        .then(Step::Replace { round }),
    })
}

async fn await_agent(
    context: &Context<'_>,
    graph: &InstanceGraph,
    sha256: &str,
) -> StepResult<Step> {
    let guest = parts::guest_address(context, graph)?;
    let call = context
        .services
        .guests
        .status(&guest, 0, std::time::Duration::ZERO);
    let status = match parts::answered("ask guest", context.guest(call).await?)? {
        Ok(status) => status,
        Err(waiting) => return Ok(waiting.then(Step::AwaitAgent)),
    };
    let agent = status.agent;
    if let Some(refused) = agent.refused.filter(|one| one.sha256 == sha256) {
        return Ok(Stepped::unwind(
            format!("the new agent was given up: {}", refused.message),
            refused.message,
        ));
    }
    if agent.sha256.as_deref() == Some(sha256) && !agent.is_on_trial {
        return Ok(Stepped::next(Step::Finish, Vec::new()));
    }
    Ok(parts::guest_wait(
        "agent.on_trial",
        "the new agent has to serve for a while before it is kept",
        limits::AGENT_POLL_MS,
    )
    .then(Step::AwaitAgent))
}

fn finish(context: &Context<'_>, graph: &InstanceGraph, input: &ReplaceAgentInput) -> Vec<Write> {
    // One that an earlier Coffer sent has a version that is not known here.
    let own = carried(context, input);
    let version = own.as_ref().map(|own| &own.version);
    let words = format!(
        "the guest's agent was replaced over its link, by {} (SHA-256 {})",
        version.map_or("another", String::as_str),
        input.sha256
    );
    let mut writes = vec![context.event("agent.replaced", Severity::Info, words)];
    let link = graph.links.first().cloned();
    if let (Some(mut link), Some(version)) = (link, version) {
        link.agent_version = Some(version.clone());
        writes.push(Write::PutLink(link));
    }
    writes
}

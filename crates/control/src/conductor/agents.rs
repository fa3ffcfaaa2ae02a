//! Which guests are given the agent that this Coffer carries, and when: one after the other, each a
//! few times at most, and none any more once several have gone back from it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::actor::Actor;
use coffer_core::id::{ServerId, TaskId, UserId};
use coffer_core::instance::Lifecycle;
use coffer_store::StoreError;
use coffer_store::link::LiveLink;
use coffer_wire::guest::v1::Status;

use crate::limits;
use crate::services::Services;
use crate::workflow::NewTask;
use crate::workflow::replace_agent::{self, ReplaceAgentInput};

/// What all polls of one conductor share.
#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// No guest is given an agent before.
    due: Duration,
    /// Guests that went back from it.
    refused: BTreeSet<ServerId>,
}

/// How often a guest was given the agent, and when it may be again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries {
    made: u32,
    due: Duration,
}

impl Agents {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next place, if there is one now.
    fn take_place(&self, now: Duration) -> bool {
        let mut state = self.state();
        let is_free = state.due <= now && state.refused.len() < limits::AGENT_REFUSALS_MAX;
        if is_free {
            state.due = now + limits::AGENT_PACE;
        }
        is_free
    }

    fn note_refusal(&self, id: ServerId) {
        let mut state = self.state();
        if state.refused.insert(id) && state.refused.len() == limits::AGENT_REFUSALS_MAX {
            tracing::error!(
                guests = state.refused.len(),
                "guests went back from the agent that this Coffer carries: no other is given it"
            );
        }
    }

    /// Asks for a guest's agent to be replaced, if it runs another one than it should.
    pub(super) async fn look(
        &self,
        services: &Services,
        link: &LiveLink,
        tries: &mut Tries,
        status: &Status,
    ) {
        let Some(own) = &services.agent else { return };
        let id = link.link.server_id;
        let refused = status.agent.refused.as_ref();
        if refused.is_some_and(|one| one.sha256 == own.sha256) {
            self.note_refusal(id);
            return;
        }
        let is_other = status
            .agent
            .sha256
            .as_ref()
            .is_some_and(|sha256| own.replaces(sha256, &status.agent_version));
        let now = services.clock.monotonic();
        let may_try = tries.made < limits::AGENT_TRIES_MAX && tries.due <= now;
        if !is_other || status.agent.is_on_trial || !may_try || !self.take_place(now) {
            return;
        }
        match request(services, link, &own.sha256).await {
            Ok(true) => {
                tries.made += 1;
                tries.due = now + limits::AGENT_RETRY;
                tracing::info!(instance_id = %link.instance_id, "replace the agent");
            }
            // Something works on it; it is asked again with the guest's next word.
            Ok(false) => {}
            Err(error) => {
                tracing::error!(instance_id = %link.instance_id, %error, "ask for another agent");
            }
        }
    }
}

/// Writes the task, unless something works on the instance. Answers whether it was written.
async fn request(services: &Services, link: &LiveLink, sha256: &str) -> Result<bool, StoreError> {
    let store = &services.store;
    let id = link.instance_id;
    let found = store.find_instance(id).await?;
    let Some(instance) = found.filter(|one| one.lifecycle == Lifecycle::Active) else {
        return Ok(false);
    };
    let user: UserId = "system".parse().expect("'system' is a valid user id");
    let new = NewTask {
        id: TaskId::from_uuid(services.new_uuid()),
        tenant_id: instance.tenant_id.clone(),
        instance_id: id,
        actor: Actor::system(instance.tenant_id, user),
        now: services.clock.now(),
    };
    let input = ReplaceAgentInput {
        instance_id: id,
        set_id: instance.set_id,
        sha256: sha256.to_owned(),
    };
    let task = replace_agent::task(new, &input);
    store.insert_task_if_idle(id, &task).await
}

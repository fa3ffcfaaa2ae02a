//! One guest's long poll: hears what changed, reads the inventory when it did, and collects the
//! evidence when nothing is heard.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::event::{Event, Severity};
use coffer_core::id::EventId;
use coffer_core::instance::{Health, Lifecycle, Observation};
use coffer_core::units::Generation;
use coffer_infra::provider::ServerState;
use coffer_store::link::LiveLink;
use coffer_store::status::Report;
use coffer_wire::guest::v1::{EngineHealth, Status};
use tokio_util::sync::CancellationToken;

use super::agents::Tries;
use super::trouble::Troubles;
use super::{Patience, Shared, inventory, recovery};
use crate::guest::{GuestAddress, GuestError};
use crate::limits;
use crate::services::Services;

/// The poll of one guest.
#[derive(Debug)]
pub(super) struct Poll {
    services: Services,
    patience: Patience,
    link: LiveLink,
    guest: GuestAddress,
    shared: Shared,
    tries: Tries,
    after: u64,
    agent_start: u64,
    inventory: Option<u64>,
    /// No inventory is read before.
    inventory_due: Duration,
    /// The run of the engine that the store knows; `None` before it was looked up.
    engine_run: Option<Option<String>>,
    troubles: Troubles,
    /// What was told last; `None` when it may be known otherwise.
    health: Option<Health>,
    heard_at: Duration,
    is_lost: bool,
}

impl Poll {
    pub(super) fn new(
        services: Services,
        patience: Patience,
        link: LiveLink,
        shared: Shared,
    ) -> Self {
        let guest = GuestAddress {
            server_id: link.link.server_id,
            link: services.provider.guest_link(link.link.server_id),
            key_fingerprint: link.link.key_fingerprint.clone(),
        };
        let now = services.clock.monotonic();
        Self {
            services,
            patience,
            link,
            guest,
            shared,
            tries: Tries::default(),
            after: 0,
            agent_start: 0,
            inventory: None,
            inventory_due: now,
            engine_run: None,
            troubles: Troubles::default(),
            health: None,
            heard_at: now,
            is_lost: false,
        }
    }

    /// Polls until told to stop.
    pub(super) async fn run(mut self, token: CancellationToken) {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => return,
                () = self.once() => {}
            }
        }
    }

    async fn once(&mut self) {
        let hold = self.hold();
        let call = self.services.guests.status(&self.guest, self.after, hold);
        match self.bounded(hold + limits::CALL_MAX, call).await {
            // Boxed: nearly always the poll waits for the guest, and these would take its room.
            Ok(status) => Box::pin(self.heard(status)).await,
            Err(error) => Box::pin(self.silent(&error)).await,
        }
    }

    /// How long the guest may hold the question: not past the time at which an inventory that
    /// changed may be read.
    fn hold(&self) -> Duration {
        let now = self.services.clock.monotonic();
        match self.inventory_due.checked_sub(now) {
            Some(left) if !left.is_zero() => left.min(self.patience.long_poll),
            _ => self.patience.long_poll,
        }
    }

    /// An answer of the guest within `limit`, which is cut so that a loss is seen in time.
    async fn bounded<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, GuestError>>,
    ) -> Result<T, GuestError> {
        tokio::select! {
            answer = call => answer,
            () = self.services.clock.sleep(limit.min(self.patience.lost_after)) => {
                Err(GuestError::Unreachable { why: "no answer in time".to_owned() })
            }
        }
    }

    async fn heard(&mut self, status: Status) {
        self.heard_at = self.services.clock.monotonic();
        self.is_lost = false;
        let is_restarted = status.agent_start != self.agent_start;
        self.agent_start = status.agent_start;
        // A restarted agent counts from the beginning again.
        self.after = if is_restarted && status.sequence < self.after {
            0
        } else {
            status.sequence
        };
        self.tell(health(status.health), &status).await;
        if self.inventory != Some(status.inventory_counter)
            && status.health == EngineHealth::Healthy
            && self.heard_at >= self.inventory_due
        {
            self.read_inventory(status.inventory_counter).await;
        }
        let (services, link) = (&self.services, &self.link);
        let agents = Arc::clone(&self.shared.agents);
        agents.look(services, link, &mut self.tries, &status).await;
    }

    async fn tell(&mut self, health: Health, status: &Status) {
        let (services, link) = (&self.services, &self.link);
        let said = &status.message;
        let trouble = self.troubles.newly(services, link, health, said).await;
        let (engine_run, started) = self.engine_run(status).await;
        let events = trouble.into_iter().chain(started).collect();
        let seen = Observation {
            instance_id: self.link.instance_id,
            generation: Generation(status.generation),
            health,
            volume_used_bytes: status.volume_used_bytes,
            volume_total_bytes: status.volume_total_bytes,
            inventory_counter: status.inventory_counter,
            engine_run,
            at: self.services.clock.now(),
        };
        let is_turn = self.health.replace(health) != Some(health);
        let report = Report::Heard {
            seen,
            is_turn,
            events,
        };
        self.send(report).await;
    }

    async fn send(&self, report: Report) {
        if self.shared.sender.send(report).await.is_err() {
            tracing::debug!("the conductor stops, a report is dropped");
        }
    }

    /// Which run of the engine this is, and the event when it is another than the store knows:
    /// also what began while no conductor looked is seen so.
    async fn engine_run(&mut self, status: &Status) -> (Option<String>, Option<Event>) {
        // A process id comes again, together with its start time it does not.
        let Some((pid, start)) = status.engine_process else {
            return (None, None);
        };
        let run = format!("{pid}@{start}");
        let id = self.link.instance_id;
        if self.engine_run.is_none() {
            match self.services.store.find_engine_run(id).await {
                Ok(known) => self.engine_run = Some(known),
                Err(error) => {
                    tracing::error!(instance_id = %id, %error, "read the engine's last run");
                    return (None, None);
                }
            }
        }
        let before = self.engine_run.replace(Some(run.clone())).flatten();
        let event = match before.filter(|before| *before != run) {
            Some(before) => Some(self.started_again(&before, &run, status).await),
            None => None,
        };
        (Some(run), event)
    }

    async fn started_again(&self, before: &str, run: &str, status: &Status) -> Event {
        let instance = self.services.store.find_instance(self.link.instance_id);
        // While something is done with the instance its engine is started on purpose.
        let is_at_rest = matches!(instance.await, Ok(Some(i)) if i.lifecycle == Lifecycle::Active);
        Event {
            id: EventId::from_uuid(self.services.new_uuid()),
            tenant_id: self.link.tenant_id.clone(),
            instance_id: Some(self.link.instance_id),
            task_id: None,
            code: "engine.started_again".to_owned(),
            severity: if is_at_rest {
                Severity::Warning
            } else {
                Severity::Info
            },
            message: format!(
                "the engine was started again: its process (pid@start) is {run} and was {before}; \
                 start {} since the sandbox began",
                status.engine_starts
            ),
            actor: None,
            at: self.services.clock.now(),
        }
    }

    /// Reads the inventory; the longer that takes, the longer until the next, so that no instance
    /// takes more than a small part of the store's time.
    async fn read_inventory(&mut self, counter: u64) {
        let clock = Arc::clone(&self.services.clock);
        let begun = clock.monotonic();
        if self.take_inventory().await {
            self.inventory = Some(counter);
        }
        let took = clock.monotonic().saturating_sub(begun);
        let pause = (took * limits::INVENTORY_REST).max(limits::INVENTORY_PACE);
        self.inventory_due = clock.monotonic() + pause;
    }

    async fn take_inventory(&self) -> bool {
        let id = self.link.instance_id;
        let call = inventory::read(&*self.services.guests, &self.guest);
        let read = match self.bounded(limits::INVENTORY_READ_MAX, call).await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(instance_id = %id, %error, "read inventory");
                return false;
            }
        };
        let now = self.services.clock.now();
        match self.services.store.put_inventory(id, &read, now).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(instance_id = %id, %error, "store inventory");
                false
            }
        }
    }

    /// Silence alone decides nothing before its time is over: the provider is asked too.
    async fn silent(&mut self, error: &GuestError) {
        let is_gone = self.is_server_gone().await;
        let now = self.services.clock.monotonic();
        let silence = now.saturating_sub(self.heard_at);
        if (is_gone || silence >= self.patience.lost_after) && !self.is_lost {
            self.health = None;
            self.is_lost = self.tell_lost(error, is_gone).await;
        }
        if is_gone {
            recovery::ask(&self.services, &self.link, "its server was not running").await;
        }
        let pause = if silence < limits::SILENCE_SHORT {
            limits::SILENT_PACE_SHORT
        } else {
            limits::SILENT_PACE
        };
        self.services.clock.sleep(pause).await;
    }

    async fn is_server_gone(&self) -> bool {
        let look = self.services.provider.observe_server(self.guest.server_id);
        tokio::select! {
            state = look => matches!(state, Ok(ServerState::Stopped | ServerState::Absent)),
            () = self.services.clock.sleep(limits::CALL_MAX) => false,
        }
    }

    /// Answers whether the loss is told, or need not be.
    async fn tell_lost(&self, error: &GuestError, is_gone: bool) -> bool {
        let id = self.link.instance_id;
        match self.services.store.find_instance(id).await {
            Ok(Some(instance)) if is_missed(instance.lifecycle) => {
                tracing::warn!(instance_id = %id, %error, is_gone, "guest is not heard");
                let at = self.services.clock.now();
                let instance_id = id;
                self.send(Report::Lost { instance_id, at }).await;
                true
            }
            Ok(_) => true,
            Err(error) => {
                tracing::error!(instance_id = %id, %error, "read the instance that was lost");
                false
            }
        }
    }
}

/// Whether the silence of an instance's guest is news.
const fn is_missed(lifecycle: Lifecycle) -> bool {
    !matches!(
        lifecycle,
        Lifecycle::Deleting | Lifecycle::Stopping | Lifecycle::Stopped
    )
}

fn health(health: EngineHealth) -> Health {
    match health {
        EngineHealth::Waiting | EngineHealth::Starting => Health::Starting,
        EngineHealth::Healthy => Health::Healthy,
        EngineHealth::Blocked => Health::Blocked,
        EngineHealth::Stopped => Health::Shutdown,
        EngineHealth::Crashed => Health::Crashed,
    }
}

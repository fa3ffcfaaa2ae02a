//! One guest's long poll: hears what changed, reads the inventory when it did, and collects the
//! evidence when nothing is heard.

use std::time::Duration;

use coffer_core::instance::{Health, Lifecycle, Observation};
use coffer_core::units::Generation;
use coffer_infra::provider::ServerState;
use coffer_store::link::LiveLink;
use coffer_wire::guest::v1::{EngineHealth, Status};
use tokio_util::sync::CancellationToken;

use super::{ingest, inventory, recovery};
use crate::guest::{GuestAddress, GuestError};
use crate::limits;
use crate::services::Services;

/// The poll of one guest.
#[derive(Debug)]
pub(super) struct Poll {
    services: Services,
    link: LiveLink,
    guest: GuestAddress,
    sender: ingest::Sender,
    after: u64,
    agent_start: u64,
    inventory: Option<u64>,
    silent_since: Option<Duration>,
    is_lost: bool,
}

impl Poll {
    pub(super) fn new(services: Services, link: LiveLink, sender: ingest::Sender) -> Self {
        let guest = GuestAddress {
            server_id: link.link.server_id,
            link: services.provider.guest_link(link.link.server_id),
            key_fingerprint: link.link.key_fingerprint.clone(),
        };
        Self {
            services,
            link,
            guest,
            sender,
            after: 0,
            agent_start: 0,
            inventory: None,
            silent_since: None,
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
        let call = self
            .services
            .guests
            .status(&self.guest, self.after, limits::LONG_POLL);
        let answer = tokio::select! {
            answer = call => answer,
            () = self.services.clock.sleep(limits::LONG_POLL + limits::CALL_MAX) => {
                Err(GuestError::Unreachable { why: "no answer to the long poll".to_owned() })
            }
        };
        match answer {
            Ok(status) => self.heard(status).await,
            Err(error) => self.silent(&error).await,
        }
    }

    async fn heard(&mut self, status: Status) {
        self.silent_since = None;
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
        {
            self.read_inventory(status.inventory_counter).await;
        }
    }

    async fn tell(&self, health: Health, status: &Status) {
        let observation = Observation {
            instance_id: self.link.instance_id,
            generation: Generation(status.generation),
            health,
            volume_used_bytes: status.volume_used_bytes,
            volume_total_bytes: status.volume_total_bytes,
            inventory_counter: status.inventory_counter,
            at: self.services.clock.now(),
        };
        if self.sender.send(observation).await.is_err() {
            tracing::debug!("the conductor stops, a report is dropped");
        }
    }

    async fn read_inventory(&mut self, counter: u64) {
        match inventory::read(&*self.services.guests, &self.guest).await {
            Ok(read) => {
                let now = self.services.clock.now();
                let id = self.link.instance_id;
                match self.services.store.put_inventory(id, &read, now).await {
                    Ok(()) => self.inventory = Some(counter),
                    Err(error) => tracing::error!(instance_id = %id, %error, "store inventory"),
                }
            }
            Err(error) => {
                tracing::debug!(instance_id = %self.link.instance_id, %error, "read inventory");
            }
        }
    }

    /// Silence alone decides nothing: the provider is asked too.
    async fn silent(&mut self, error: &GuestError) {
        let now = self.services.clock.monotonic();
        let since = *self.silent_since.get_or_insert(now);
        let silence = now.saturating_sub(since);
        let state = self
            .services
            .provider
            .observe_server(self.guest.server_id)
            .await;
        let is_gone = matches!(state, Ok(ServerState::Stopped | ServerState::Absent));
        if (is_gone || silence >= limits::SILENCE_MAX) && !self.is_lost {
            tracing::warn!(
                instance_id = %self.link.instance_id, %error, is_gone, "guest is not heard"
            );
            self.is_lost = true;
            self.tell_lost().await;
        }
        if is_gone {
            recovery::ask(&self.services, &self.link, "its server was not running").await;
        }
        let pause = if silence < Duration::from_secs(1) {
            20
        } else {
            500
        };
        self.services
            .clock
            .sleep(Duration::from_millis(pause))
            .await;
    }

    async fn tell_lost(&self) {
        let known = self
            .services
            .store
            .find_instance(self.link.instance_id)
            .await;
        let Ok(Some(instance)) = known else { return };
        if instance.lifecycle == Lifecycle::Deleting {
            return;
        }
        let observation = Observation {
            instance_id: self.link.instance_id,
            generation: Generation(0),
            health: Health::Lost,
            volume_used_bytes: instance.volume_used_bytes.unwrap_or(0),
            volume_total_bytes: 0,
            inventory_counter: self.inventory.unwrap_or(0),
            at: self.services.clock.now(),
        };
        if self.sender.send(observation).await.is_err() {
            tracing::debug!("the conductor stops, a report is dropped");
        }
    }
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

//! Keeps what the provider holds and what the store says the same.
//!
//! What carries Coffer's tag and the store does not know is removed, once it was unknown in two
//! runs: a row is always written before the provider is asked, so an object without a row is
//! left over. What the store believes and the provider lost is brought back by a task. Nothing is
//! touched that does not carry the tag. Over a state that was restored from a backup it only
//! reports (`restored.rs`), until the operator confirms.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::id::{EndpointId, InstanceId, NetworkId, ServerId, VolumeId};
use coffer_core::server::{Presence, Server, ServerPurpose};
use coffer_core::units::Incarnation;
use coffer_infra::ProviderError;
use coffer_infra::provider::{Owned, ServerState};
use coffer_store::StoreError;

use super::restored;
use crate::conductor::recovery;
use crate::limits;
use crate::services::Services;
use crate::supervise::Supervisor;

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcileStatus {
    /// Objects removed because the store does not know them.
    pub removed: usize,
    /// Objects not known for the first time.
    pub suspected: usize,
    /// Stuck tasks that are looked at again.
    pub revived: usize,
    /// Recoveries asked for.
    pub recovered: usize,
    /// Objects that could not be looked at or mended; the log names them.
    pub failed: usize,
}

/// A run that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store failed.
    #[error("reconcile: read the store: {0}")]
    Store(#[from] StoreError),
    /// The provider failed.
    #[error("reconcile: {0}")]
    Provider(#[from] ProviderError),
    /// What a restored state does not know cannot be taken in.
    #[error("adopt instance {id}: {why}")]
    Adopt {
        /// The instance.
        id: InstanceId,
        /// What is in the way.
        why: String,
    },
}

/// The reconciler of one process.
#[derive(Debug)]
pub struct Reconciler {
    services: Services,
    suspected: BTreeSet<Owned>,
}

impl Reconciler {
    /// A reconciler that suspects nothing yet.
    pub fn new(services: Services) -> Self {
        Self {
            services,
            suspected: BTreeSet::new(),
        }
    }

    /// Runs at once and then periodically, until told to stop.
    pub async fn run(mut self, supervisor: Supervisor) {
        let token = supervisor.token();
        let clock = Arc::clone(&self.services.clock);
        let mut pause = Duration::from_secs(2);
        while !token.is_cancelled() {
            match self.once().await {
                Ok(status) if status != ReconcileStatus::default() => {
                    tracing::info!(?status, "reconciled");
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "reconcile"),
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = clock.sleep(pause) => {}
            }
            // Whoever restored a state waits for what is found, and then for what is settled.
            let is_restored = self.services.store.is_restored().await;
            if !is_restored.unwrap_or(false) {
                pause = limits::RECONCILE_PERIOD;
            }
        }
    }

    /// One run.
    pub async fn once(&mut self) -> Result<ReconcileStatus, ReconcileError> {
        let mut status = ReconcileStatus::default();
        if self.is_restored().await? {
            return Ok(status);
        }
        // What is lost is recovered also when the provider cannot tell what is left over.
        let removed = self.remove_unknown(&mut status).await;
        self.revive_stuck(&mut status).await?;
        self.recover_lost(&mut status).await?;
        removed.map(|()| status)
    }

    /// Whether this is a restored state that nobody has settled. It is looked at, and settled if
    /// the operator wants it; nothing is removed in the same run.
    async fn is_restored(&mut self) -> Result<bool, ReconcileError> {
        let store = &self.services.store;
        if !store.is_restored().await? {
            return Ok(false);
        }
        if let Some(mark) = store.restored().await? {
            self.suspected.clear();
            restored::once(&self.services, mark).await?;
        }
        Ok(true)
    }

    async fn remove_unknown(&mut self, status: &mut ReconcileStatus) -> Result<(), ReconcileError> {
        // The provider is asked first: a row written meanwhile is then seen.
        let owned = within(&self.services, self.services.provider.list_owned()).await?;
        let known = Known::read(&self.services).await?;
        let unknown: BTreeSet<Owned> = owned.into_iter().filter(|o| !known.has(o)).collect();
        for one in unknown.intersection(&self.suspected) {
            tracing::warn!(object = ?one, "remove what the store does not know");
            match remove(&self.services, one).await {
                Ok(()) => status.removed += 1,
                Err(error) => {
                    tracing::warn!(object = ?one, %error, "remove left-over");
                    status.failed += 1;
                }
            }
        }
        status.suspected = unknown.difference(&self.suspected).count();
        self.suspected = unknown;
        Ok(())
    }

    /// Tasks that a worker did not know how to go on with are looked at again: after an upgrade,
    /// or by a worker that is newer already.
    async fn revive_stuck(&self, status: &mut ReconcileStatus) -> Result<(), ReconcileError> {
        let now = self.services.clock.now();
        let before = now.plus_millis(-limits::STUCK_REST_MS);
        let revived = self.services.store.revive_stuck(before, now).await?;
        status.revived = usize::try_from(revived).unwrap_or(usize::MAX);
        Ok(())
    }

    async fn recover_lost(&self, status: &mut ReconcileStatus) -> Result<(), ReconcileError> {
        for server in self.services.store.list_servers().await? {
            let Some(instance_id) = server.instance_id else {
                continue;
            };
            if server.presence != Presence::Present
                || server.purpose != ServerPurpose::Instance
                || !is_here(&self.services, &server)
            {
                continue;
            }
            match self.recover_if_lost(server.id, instance_id).await {
                Ok(is_asked) => status.recovered += usize::from(is_asked),
                // One damaged record keeps no other instance from being recovered.
                Err(error) => {
                    tracing::error!(%instance_id, server_id = %server.id, %error, "look at server");
                    status.failed += 1;
                }
            }
        }
        Ok(())
    }

    async fn recover_if_lost(
        &self,
        server_id: ServerId,
        instance_id: InstanceId,
    ) -> Result<bool, ReconcileError> {
        let look = self.services.provider.observe_server(server_id);
        let state = within(&self.services, look).await?;
        if matches!(state, ServerState::Running(_)) {
            return Ok(false);
        }
        let cause = "its server was not running";
        Ok(recovery::request(&self.services, instance_id, cause).await?)
    }
}

/// Whether the server runs, or should, where this process looks. Another task manager on the same
/// store may have a provider, host or state directory of its own; what that one runs looks lost
/// from here.
fn is_here(services: &Services, server: &Server) -> bool {
    let provider = &services.provider;
    let provider_ref = server.provider_ref.as_deref();
    server.provider == provider.name()
        && provider_ref.is_none_or(|of| provider.is_mine(server.id, of))
}

/// What the store knows.
#[derive(Debug)]
pub(super) struct Known {
    networks: BTreeSet<NetworkId>,
    endpoints: BTreeSet<EndpointId>,
    servers: BTreeMap<ServerId, Incarnation>,
    volumes: BTreeMap<VolumeId, Incarnation>,
}

impl Known {
    pub(super) async fn read(services: &Services) -> Result<Self, StoreError> {
        let store = &services.store;
        let endpoints = store.list_endpoints().await?;
        Ok(Self {
            // A network without members has no place at the provider, though its row stays.
            networks: endpoints.iter().map(|e| e.network_id).collect(),
            endpoints: endpoints.into_iter().map(|e| e.id).collect(),
            servers: store
                .list_servers()
                .await?
                .into_iter()
                .map(|s| (s.id, s.incarnation))
                .collect(),
            volumes: store
                .list_volumes()
                .await?
                .into_iter()
                .map(|v| (v.id, v.incarnation))
                .collect(),
        })
    }

    pub(super) fn has(&self, owned: &Owned) -> bool {
        match owned {
            Owned::Network(id) => self.networks.contains(id),
            Owned::Endpoint(id) => self.endpoints.contains(id),
            Owned::Server(id, incarnation) => self
                .servers
                .get(id)
                .is_some_and(|known| incarnation >= known),
            // One that the provider has no record of any more is named with incarnation 0. While
            // the store knows the volume it may be a tenant's data: only its delete removes it.
            Owned::Volume(id, incarnation) => self
                .volumes
                .get(id)
                .is_some_and(|known| incarnation >= known || *incarnation == Incarnation(0)),
        }
    }
}

async fn remove(services: &Services, owned: &Owned) -> Result<(), ProviderError> {
    let provider = &services.provider;
    let removed = match owned {
        Owned::Network(id) => provider.delete_network(*id),
        Owned::Endpoint(id) => provider.delete_endpoint(*id),
        Owned::Server(id, incarnation) => provider.delete_server(*id, *incarnation),
        Owned::Volume(id, incarnation) => provider.delete_volume(*id, *incarnation),
    };
    within(services, removed).await.map(drop)
}

/// What a call comes to, unless it takes longer than any may: the next run asks again.
async fn within<T>(
    services: &Services,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    tokio::select! {
        ended = call => ended,
        () = services.clock.sleep(limits::CALL_MAX) => Err(ProviderError::Transient {
            what: "reconcile",
            why: "the provider does not answer".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_volume_of_the_store_is_known_also_where_its_record_was_lost() {
        let [volume, other] = [1, 2].map(|n| VolumeId::from_uuid(Uuid::from_u128(n)));
        let server = ServerId::from_uuid(Uuid::from_u128(3));
        let known = Known {
            networks: BTreeSet::new(),
            endpoints: BTreeSet::new(),
            servers: BTreeMap::from([(server, Incarnation(2))]),
            volumes: BTreeMap::from([(volume, Incarnation(2))]),
        };
        let of_volume = |id, incarnation| known.has(&Owned::Volume(id, Incarnation(incarnation)));
        assert!(of_volume(volume, 0) && of_volume(volume, 2) && of_volume(volume, 3));
        assert!(!of_volume(volume, 1), "an older one was replaced");
        assert!(!of_volume(other, 0) && !of_volume(other, 2));
        // A server holds no data, and is made again.
        assert!(!known.has(&Owned::Server(server, Incarnation(0))));
        assert!(known.has(&Owned::Server(server, Incarnation(2))));
    }
}

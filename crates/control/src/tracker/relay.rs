//! Relays: interactive bytes between a client of the API and an instance's engine, and users that
//! are there for the length of a visit. Bounded in number and time; each is in the audit trail,
//! with its bytes when it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::event::AuditEntry;
use coffer_core::id::{InstanceId, ServerId};
use coffer_core::server::ServerPurpose;
use coffer_store::Store;
use coffer_wire::guest::v1::UserSpec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Links;
use crate::error::{Error, Kind, Result};
use crate::guest::{GuestAddress, GuestError, GuestStream, LinkGuests, Visit};
use crate::limits;
use crate::supervise::Supervisor;

/// Opens what goes through the tracker by hand.
#[derive(Debug, Clone)]
pub struct Relays {
    store: Store,
    guests: Arc<LinkGuests>,
    links: Arc<dyn Links>,
    supervisor: Supervisor,
    places: Arc<Semaphore>,
}

/// One of the places for relays and visits; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Relays {
    /// Relays that reach guests over these links, in this set of tasks.
    pub fn new(
        store: Store,
        guests: Arc<LinkGuests>,
        links: Arc<dyn Links>,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            store,
            guests,
            links,
            supervisor,
            places: Arc::new(Semaphore::new(limits::RELAYS_MAX)),
        }
    }

    /// Opens a byte stream to the engine of an instance.
    pub async fn open(&self, instance_id: InstanceId) -> Result<(GuestStream, Place)> {
        let place = self.place()?;
        let guest = self.guest(instance_id).await?;
        let stream = self.guests.open_stream(&guest);
        Ok((in_time(limits::RELAY_OPEN_WAIT, stream).await?, place))
    }

    /// Makes a user for as long as the answer is kept.
    pub async fn visit(&self, instance_id: InstanceId, user: UserSpec) -> Result<(Visit, Place)> {
        let place = self.place()?;
        let guest = self.guest(instance_id).await?;
        let visit = self.guests.visit(&guest, user);
        Ok((in_time(limits::VISIT_WAIT, visit).await?, place))
    }

    /// Runs something beside the request that began it, until Coffer stops.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.supervisor.start_short(task);
    }

    /// Tells when Coffer stops.
    pub fn token(&self) -> CancellationToken {
        self.supervisor.token()
    }

    /// Notes the end of a relay; there is nobody left to tell when that fails.
    pub async fn note(&self, entry: &AuditEntry) {
        if let Err(error) = self.store.insert_audit(entry).await {
            tracing::error!(%error, action = %entry.action, "write the audit trail");
        }
    }

    fn place(&self) -> Result<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map(|permit| Place { _permit: permit }).map_err(|_| {
            let message = format!(
                "{} interactive connections and visits are open, and no more are allowed",
                limits::RELAYS_MAX
            );
            Error::new(Kind::OverLimit, "too-many-relays", message)
                .with_hint("end one, or connect to the instance's address")
        })
    }

    async fn guest(&self, instance_id: InstanceId) -> Result<GuestAddress> {
        let graph = self.store.get_instance_graph(instance_id).await?;
        let server = graph
            .servers
            .iter()
            .find(|s| s.purpose == ServerPurpose::Instance);
        let id: ServerId = server
            .map(|server| server.id)
            .ok_or_else(|| unreachable("it has no server"))?;
        let link = graph.links.iter().find(|link| link.server_id == id);
        let key = link.and_then(|link| link.key_fingerprint.clone());
        Ok(GuestAddress {
            server_id: id,
            link: self.links.link(id),
            // Without a pinned key nobody knows who would answer.
            key_fingerprint: Some(key.ok_or_else(|| unreachable("its guest is not enrolled"))?),
        })
    }
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<T, GuestError>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(ended) => ended.map_err(|error| refused(&error)),
        Err(_) => Err(unreachable("its guest does not answer")),
    }
}

fn unreachable(why: &str) -> Error {
    let message = format!("The instance cannot be connected to: {why}.");
    Error::new(Kind::Unprocessable, "not-reachable", message)
        .with_hint("ask explain why the instance is as it is")
}

fn refused(error: &GuestError) -> Error {
    match error {
        GuestError::Refused { message, .. } => unreachable(message),
        _ => unreachable("its guest does not answer").with_context(error.to_string()),
    }
}

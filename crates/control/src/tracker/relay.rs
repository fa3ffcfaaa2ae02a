//! Relays: interactive bytes between an API's client and an instance's engine, and users that are
//! there for the length of a visit. Each takes a grant, which is used once. Bounded in number and
//! time, for each instance and project too; each is in the audit trail when it ends, with its
//! bytes and how it ended. None decides a status.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::actor::Actor;
use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, InstanceId, ServerId, TenantId, TrackerId};
use coffer_core::server::ServerPurpose;
use coffer_core::tracker::RelayPurpose;
use coffer_store::{Store, StoreError};
use coffer_wire::relay::{Opening, Purpose, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::Links;
use super::listener::Stream;
use crate::auth::token::token_hash;
use crate::clock::{Clock, Entropy, new_uuid};
use crate::guest::{Ending, GuestAddress, GuestError, GuestStream, LinkGuests, Meter, Visit};
use crate::limits;
use crate::places::{Place, Places};

/// Opens what goes through one tracker by hand.
#[derive(Debug)]
pub struct Relays {
    tracker_id: TrackerId,
    doors: Doors,
    per_project: Places,
    per_instance: Places,
}

/// What relays work with.
#[derive(Debug, Clone)]
pub struct Doors {
    /// State.
    pub store: Store,
    /// Guests.
    pub guests: Arc<LinkGuests>,
    /// The ways to them.
    pub links: Arc<dyn Links>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Tells when Coffer stops.
    pub token: CancellationToken,
}

/// Why a relay is not opened.
#[derive(Debug)]
pub(super) struct Refused {
    /// For programs.
    pub(super) why: Refusal,
    /// In words.
    pub(super) message: String,
    /// The private cause.
    pub(super) context: Option<String>,
}

/// A relay that is open.
#[derive(Debug)]
pub(super) struct Relay {
    doors: Doors,
    instance_id: InstanceId,
    actor: Actor,
    way: Way,
    _places: [Place; 2],
}

#[derive(Debug)]
enum Way {
    /// To the engine's port.
    Connect(Box<GuestStream>),
    /// A visitor of this name.
    Visit(String, Box<Visit>),
}

impl Relays {
    /// Relays of this tracker.
    pub fn new(tracker_id: TrackerId, doors: Doors) -> Self {
        let max = limits::RELAYS_MAX;
        Self {
            tracker_id,
            doors,
            per_project: Places::new(max, limits::RELAYS_PER_PROJECT),
            per_instance: Places::new(max, limits::RELAYS_PER_INSTANCE),
        }
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.doors.token
    }

    /// Uses the grant up and opens what it is for.
    pub(super) async fn open(&self, opening: &Opening) -> Result<Relay, Refused> {
        let (tenant_id, instance_id, actor) = self.granted(opening).await?;
        let places = self.places(&tenant_id, instance_id)?;
        let guest = self.guest(instance_id).await?;
        let guests = &self.doors.guests;
        let way = match &opening.purpose {
            Purpose::Connect => {
                let stream = guests.open_stream(&guest);
                Way::Connect(Box::new(in_time(limits::RELAY_OPEN_WAIT, stream).await?))
            }
            Purpose::Visit(user) => {
                let visit = guests.visit(&guest, user.clone());
                let visit = in_time(limits::VISIT_WAIT, visit).await?;
                Way::Visit(user.name.clone(), Box::new(visit))
            }
        };
        // The next one comes here at once.
        let led = self.doors.store.lead_link(instance_id, self.tracker_id);
        led.await.map_err(|error| failed(&error))?;
        Ok(Relay {
            doors: self.doors.clone(),
            instance_id,
            actor,
            way,
            _places: places,
        })
    }

    async fn granted(&self, opening: &Opening) -> Result<(TenantId, InstanceId, Actor), Refused> {
        let no = || Refused {
            why: Refusal::Grant,
            message: "The tracker does not know the grant.".to_owned(),
            context: None,
        };
        let tenant_id: TenantId = opening.project_id.parse().map_err(|_| no())?;
        let instance_id: InstanceId = opening.instance_id.parse().map_err(|_| no())?;
        let purpose = match opening.purpose {
            Purpose::Connect => RelayPurpose::Connect,
            Purpose::Visit(_) => RelayPurpose::Visit,
        };
        let wanted = (&tenant_id, instance_id, purpose);
        let store = &self.doors.store;
        let hash = token_hash(&opening.grant);
        let used = store.use_grant(self.tracker_id, &hash, wanted);
        let actor = used.await.map_err(|error| failed(&error))?;
        Ok((tenant_id.clone(), instance_id, actor.ok_or_else(no)?))
    }

    fn places(&self, tenant_id: &TenantId, id: InstanceId) -> Result<[Place; 2], Refused> {
        let of_project = self.per_project.take(tenant_id.as_str());
        let of_instance = self.per_instance.take(&id.to_string());
        match (of_project, of_instance) {
            (Some(one), Some(other)) => Ok([one, other]),
            _ => Err(Refused {
                why: Refusal::TooMany,
                message: format!(
                    "Too many interactive connections and visits are open: {} to one instance, {} \
                     to those of one project and {} altogether are allowed.",
                    limits::RELAYS_PER_INSTANCE,
                    limits::RELAYS_PER_PROJECT,
                    limits::RELAYS_MAX
                ),
                context: None,
            }),
        }
    }

    async fn guest(&self, instance_id: InstanceId) -> Result<GuestAddress, Refused> {
        let graph = self.doors.store.get_instance_graph(instance_id).await;
        let graph = graph.map_err(|error| failed(&error))?;
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
            link: self.doors.links.link(id),
            // Without a pinned key nobody knows who would answer.
            key_fingerprint: Some(key.ok_or_else(|| unreachable("its guest is not enrolled"))?),
        })
    }
}

impl Relay {
    /// Passes bytes, or keeps the visitor, until an end comes; then notes it.
    pub(super) async fn run(self, stream: Stream) {
        let Self {
            doors,
            instance_id,
            actor,
            way,
            _places,
        } = self;
        let meter = Meter::default();
        let (action, target) = match way {
            Way::Connect(guest) => {
                let end = end(&doors, &meter);
                let ending = guest.bridge(stream, &meter, end).await.as_str();
                let (sent, received) = meter.read();
                let counts = format!("sent={sent}&received={received}&ended={ending}");
                ("disconnect", format!("connect?{counts}"))
            }
            Way::Visit(user, visit) => {
                let ending = stay(&doors, visit, stream).await.as_str();
                ("leave", format!("visits?user={user}&ended={ending}"))
            }
        };
        let entry = AuditEntry {
            id: AuditId::from_uuid(new_uuid(&*doors.clock, &*doors.entropy)),
            actor,
            action: format!("coffer:instance:{action}"),
            target: format!("instances/{instance_id}/{target}"),
            outcome: 200,
            at: doors.clock.now(),
        };
        if let Err(error) = doors.store.insert_audit(&entry).await {
            tracing::error!(%error, action = %entry.action, "write the audit trail");
        }
    }
}

/// What ends a relay when neither side does.
async fn end(doors: &Doors, meter: &Meter) -> Ending {
    tokio::select! {
        () = doors.token.cancelled() => Ending::Stopped,
        () = doors.clock.sleep(limits::RELAY_MAX) => Ending::Limit,
        () = idle(&*doors.clock, meter) => Ending::Idle,
    }
}

/// Comes back when nothing went through for too long.
async fn idle(clock: &dyn Clock, meter: &Meter) {
    let (mut last, mut since) = (meter.read(), clock.monotonic());
    loop {
        clock.sleep(limits::RELAY_IDLE_LOOK).await;
        let (now, at) = (meter.read(), clock.monotonic());
        if now != last {
            (last, since) = (now, at);
        } else if at.saturating_sub(since) >= limits::RELAY_IDLE_MAX {
            return;
        }
    }
}

/// Keeps a visitor until the API, the guest or Coffer ends.
async fn stay(doors: &Doors, mut visit: Box<Visit>, stream: Stream) -> Ending {
    let (mut from_api, mut to_api) = tokio::io::split(stream);
    let mut said = [0];
    let ending = loop {
        tokio::select! {
            () = doors.token.cancelled() => break Ending::Stopped,
            why = visit.ended() => {
                tracing::debug!(%why, "a visit ended");
                break Ending::Engine;
            }
            // It has nothing more to say than that it leaves.
            _ = from_api.read(&mut said) => break Ending::Client,
            () = doors.clock.sleep(limits::VISIT_BEAT) => {
                if to_api.write_all(b"\n").await.is_err() || to_api.flush().await.is_err() {
                    break Ending::Client;
                }
            }
        }
    };
    drop(visit);
    let bid_farewell = tokio::time::timeout(limits::RELAY_CANCEL_WAIT, to_api.shutdown());
    bid_farewell.await.ok();
    ending
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, Refused> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(GuestError::Refused { message, .. })) => Err(unreachable(&message)),
        Ok(Err(error)) => Err(Refused {
            context: Some(error.to_string()),
            ..unreachable("its guest does not answer")
        }),
        Err(_) => Err(unreachable("its guest does not answer")),
    }
}

fn unreachable(why: &str) -> Refused {
    Refused {
        why: Refusal::NotReachable,
        message: format!("The instance cannot be connected to: {why}."),
        context: None,
    }
}

fn failed(error: &StoreError) -> Refused {
    Refused {
        why: Refusal::Failed,
        message: "The tracker cannot read its store.".to_owned(),
        context: Some(error.to_string()),
    }
}

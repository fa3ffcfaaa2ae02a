//! The API's way to a tracker: it writes a grant, opens a stream to the tracker that the
//! instance's link names (or to another of the same provider when that one is gone), and passes
//! bytes. It reaches no guest itself.

use std::future::Future;
use std::sync::Arc;

use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, TenantId};
use coffer_core::tracker::{Grant, RelayPurpose, Tracker};
use coffer_store::Store;
use coffer_store::tracker::TrackerView;
use coffer_wire::relay::{Opening, Purpose, Refusal, Reply};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{read_line, tracker_name, write_line};
use crate::auth::token::{new_token, token_hash};
use crate::clock::{Clock, Entropy};
use crate::error::{Error, Kind, Result};
use crate::guest::{Ending, Meter};
use crate::limits;
use crate::supervise::Supervisor;
use crate::tls::{self, AltNames, Authority, Renewed, TlsError, Usage};

/// What to do when no tracker is there.
const HINT: &str = "start `coffer tracker` on the host of the instances, or `coffer up`; `coffer \
                    status` shows the operator which trackers answer";

type Stream = BufReader<TlsStream<TcpStream>>;

/// Opens streams to trackers; cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    store: Store,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    supervisor: Supervisor,
    tls: Tls,
    places: Arc<Semaphore>,
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// What somebody is to be brought to.
#[derive(Debug)]
pub struct Wanted {
    /// Project of the instance.
    pub tenant_id: TenantId,
    /// The instance.
    pub instance_id: InstanceId,
    /// What for.
    pub purpose: Purpose,
    /// Who asks.
    pub actor: Actor,
}

/// A stream through a tracker, open.
#[derive(Debug)]
pub struct Relay {
    stream: Stream,
    _place: OwnedSemaphorePermit,
}

impl Door {
    /// A door that shows trackers a certificate of this authority.
    pub fn new(
        store: Store,
        authority: Authority,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        supervisor: Supervisor,
    ) -> std::result::Result<Self, TlsError> {
        let ca_pem = authority.cert_pem.clone();
        let (none, usage) = (AltNames::default(), Usage::Client);
        let own = Renewed::new(authority, "api", none, usage, clock.clone())?;
        let config = tls::relay_client_config(Arc::new(own), &ca_pem)?;
        Ok(Self {
            store,
            clock,
            entropy,
            supervisor,
            tls: Tls(TlsConnector::from(Arc::new(config))),
            places: Arc::new(Semaphore::new(limits::RELAYS_MAX)),
        })
    }

    /// Opens a relay.
    pub async fn open(&self, wanted: &Wanted) -> Result<Relay> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            let message = format!(
                "{} interactive connections and visits go through this API, and no more are \
                 allowed.",
                limits::RELAYS_MAX
            );
            too_many(message)
        })?;
        let (stream, tracker) = self.reached(wanted.instance_id).await?;
        let stream = self.opened(stream, &tracker, wanted).await?;
        Ok(Relay {
            stream,
            _place: place,
        })
    }

    /// A stream to the first tracker that can be reached.
    async fn reached(&self, instance_id: InstanceId) -> Result<(Stream, Tracker)> {
        let limit = limits::TRACKERS_TRIED;
        let trackers = self.store.list_trackers_to(instance_id, limit).await?;
        let mut causes = Vec::new();
        for tracker in trackers {
            match self.dial(&tracker).await {
                Ok(stream) => return Ok((stream, tracker)),
                Err(error) => {
                    causes.push(format!("{} at {}: {error}", tracker.id, tracker.address))
                }
            }
        }
        let (reason, message) = match causes.len() {
            0 => (
                "no-tracker",
                "No tracker is there that leads to this instance.".to_owned(),
            ),
            1 => (
                "tracker-unreachable",
                "The tracker that leads to this instance does not answer.".to_owned(),
            ),
            n => (
                "tracker-unreachable",
                format!("None of the {n} trackers that lead to this instance answers."),
            ),
        };
        if !causes.is_empty() {
            tracing::info!(%instance_id, causes = causes.join("; "), "no tracker answers");
        }
        Err(Error::new(Kind::Unavailable, reason, message).with_hint(HINT))
    }

    async fn dial(&self, tracker: &Tracker) -> std::io::Result<Stream> {
        let dialled = async {
            let stream = TcpStream::connect(&tracker.address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(tracker_name(tracker.id));
            let name = name.map_err(std::io::Error::other)?;
            let stream = self.tls.0.connect(name, stream).await?;
            Ok::<_, std::io::Error>(BufReader::new(stream))
        };
        tokio::select! {
            dialled = dialled => dialled,
            () = self.clock.sleep(limits::TRACKER_DIAL_WAIT) => {
                Err(std::io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Shows a new grant and waits until the relay is open.
    async fn opened(
        &self,
        mut stream: Stream,
        tracker: &Tracker,
        wanted: &Wanted,
    ) -> Result<Stream> {
        let secret = new_token(&*self.entropy);
        let grant = Grant {
            hash: token_hash(secret.expose()),
            tracker_id: tracker.id,
            tenant_id: wanted.tenant_id.clone(),
            instance_id: wanted.instance_id,
            purpose: match wanted.purpose {
                Purpose::Connect => RelayPurpose::Connect,
                Purpose::Visit(_) => RelayPurpose::Visit,
            },
            until: tracker.beat + limits::GRANT_BEATS,
            actor: wanted.actor.clone(),
        };
        self.store.insert_grant(&grant).await?;
        let opening = Opening {
            grant: secret.expose().to_owned(),
            project_id: wanted.tenant_id.to_string(),
            instance_id: wanted.instance_id.to_string(),
            purpose: wanted.purpose.clone(),
        };
        let answered = async {
            write_line(&mut stream, &opening).await?;
            read_line::<Reply>(&mut stream).await
        };
        let reply = tokio::select! {
            reply = answered => reply,
            () = self.clock.sleep(limits::RELAY_REPLY_WAIT) => {
                Err(std::io::ErrorKind::TimedOut.into())
            }
        };
        match reply {
            Ok(Reply::Opened) => Ok(stream),
            Ok(Reply::Refused {
                why,
                message,
                context,
            }) => Err(refused(why, message, context)),
            Err(error) => {
                let message = "The tracker that leads to this instance ended without an answer.";
                let lost = Error::new(Kind::Unavailable, "tracker-lost", message);
                Err(lost.with_hint(HINT).with_context(error.to_string()))
            }
        }
    }

    /// The trackers, and whether each can be reached from here.
    pub async fn trackers(&self) -> Result<Vec<(TrackerView, bool)>> {
        let mut all = self.store.list_trackers().await?;
        // The latest are the ones that live.
        let older = all.len().saturating_sub(limits::TRACKERS_SHOWN);
        let looks = all.drain(older..).map(|one| async move {
            let is_reached = self.dial(&one.tracker).await.is_ok();
            (one, is_reached)
        });
        Ok(futures_util::future::join_all(looks).await)
    }

    /// Runs something beside the request that began it, until Coffer stops.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.supervisor.start_short(task);
    }

    /// Tells when Coffer stops.
    pub fn token(&self) -> CancellationToken {
        self.supervisor.token()
    }
}

fn refused(why: Refusal, message: String, context: Option<String>) -> Error {
    let error = match why {
        Refusal::NotReachable => Error::new(Kind::Unprocessable, "not-reachable", message)
            .with_hint("ask explain why the instance is as it is"),
        Refusal::TooMany => too_many(message),
        // It was written a moment ago: the instance goes, or the tracker stood still for long.
        Refusal::Grant => Error::new(Kind::Unavailable, "relay-refused", message)
            .with_hint("try again; if it stays so, look into the tracker's log"),
        Refusal::Failed => Error::new(Kind::Unavailable, "tracker-failed", message)
            .with_hint("try again; if it stays so, look into the tracker's log"),
    };
    match context {
        Some(context) => error.with_context(context),
        None => error,
    }
}

fn too_many(message: String) -> Error {
    Error::new(Kind::OverLimit, "too-many-relays", message)
        .with_hint("end one, or connect to the instance's address")
}

impl Relay {
    /// Passes bytes both ways until the tracker ends the relay, the client leaves, or the end is
    /// told, which is as if it left. The tracker notes in the audit trail how it ended, unless it
    /// was lost: then the bytes are the answer.
    pub async fn pass(
        self,
        client: impl AsyncRead + AsyncWrite + Send,
        clock: &dyn Clock,
        end: impl Future<Output = ()>,
    ) -> Option<Meter> {
        let (mut from_tracker, mut to_tracker) = tokio::io::split(self.stream);
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let meter = Meter::default();
        let up = async {
            copy(&mut from_client, &mut to_tracker, |n| meter.add_sent(n)).await;
            // The tracker is told and takes its leave, which ends the other way.
            to_tracker.shutdown().await.ok();
            clock.sleep(2 * limits::RELAY_CANCEL_WAIT).await;
            Ending::Client
        };
        let down = async {
            let count = |n| {
                meter.add_received(n);
            };
            copy(&mut from_tracker, &mut to_client, count).await
        };
        let ending = tokio::select! {
            ending = up => ending,
            ending = down => ending,
            () = end => Ending::Client,
        };
        // Who has left already has told the tracker, and tells it no more.
        let bid_farewell = async {
            to_tracker.shutdown().await.ok();
            to_client.shutdown().await.ok();
        };
        tokio::select! {
            () = bid_farewell => {}
            () = clock.sleep(limits::RELAY_CANCEL_WAIT) => {}
        }
        (ending == Ending::TrackerLost).then_some(meter)
    }

    /// Waits for the next sign of life of a visit; `false` at its end.
    pub async fn beat(&mut self) -> bool {
        matches!(self.stream.read_u8().await, Ok(b'\n'))
    }
}

/// Copies until one side ends; a reader that breaks off without a farewell was lost.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(usize),
) -> Ending {
    let mut piece = vec![0_u8; limits::RELAY_PIECE_BYTES];
    loop {
        let length = match from.read(&mut piece).await {
            Ok(0) => return Ending::Engine,
            Ok(length) => length,
            Err(_) => return Ending::TrackerLost,
        };
        if to.write_all(&piece[..length]).await.is_err() || to.flush().await.is_err() {
            return Ending::Client;
        }
        count(length);
    }
}

const _: () = assert!(limits::RELAY_REPLY_WAIT.as_secs() > limits::VISIT_WAIT.as_secs());

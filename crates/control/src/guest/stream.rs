//! What lives as long as its connection to a guest: interactive streams and visits.
//!
//! A stream takes two connections, for bytes from the guest and bytes to it; opening,
//! acknowledging and cancelling are calls as any other. Nothing is resumed: who is connected by
//! hand connects again.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use coffer_wire::guest::v1::{SessionEvent, SessionRequest, StreamRequest, StreamState, UserSpec};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::client::{LinkGuests, read, unreachable};
use super::{GuestAddress, GuestError, Result};
use crate::limits;

/// LIMIT: pieces of a client's bytes that wait for the guest.
const PIECES_WAITING_MAX: usize = 4;

/// Bytes that go through a relay, counted while they do; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<[AtomicU64; 2]>);

impl Meter {
    /// Counts bytes from the client to the engine.
    pub fn add_sent(&self, bytes: usize) {
        self.0[0].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes from the engine to the client; the sum.
    pub fn add_received(&self, bytes: usize) -> u64 {
        self.0[1].fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }

    /// From the client to the engine, and from the engine to the client.
    pub fn read(&self) -> (u64, u64) {
        (
            self.0[0].load(Ordering::Relaxed),
            self.0[1].load(Ordering::Relaxed),
        )
    }
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client did.
    Client,
    /// The engine or its guest did.
    Engine,
    /// Nothing went through it for too long.
    Idle,
    /// It was open for too long.
    Limit,
    /// Coffer stopped.
    Stopped,
    /// The tracker was lost.
    TrackerLost,
}

impl Ending {
    /// As the audit trail has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Engine => "engine",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Stopped => "stopped",
            Self::TrackerLost => "tracker-lost",
        }
    }
}

/// A byte stream to the engine's own port, through its guest.
#[derive(Debug)]
pub struct GuestStream {
    calls: Calls,
    down: Incoming,
    up: SendRequest<Pieces>,
    _held: SendRequest<Empty<Bytes>>,
}

/// Calls about one stream.
#[derive(Debug)]
struct Calls {
    guests: Arc<LinkGuests>,
    guest: GuestAddress,
    /// Path of the stream.
    path: String,
}

impl Calls {
    /// Tells the guest to forget what is below an offset.
    async fn acknowledge(&self, offset: u64) -> Result<StreamState> {
        let path = format!("{}/ack?offset={offset}", self.path);
        let call = self
            .guests
            .call(&self.guest, Method::POST, &path, Bytes::new());
        call.await
    }

    /// Ends the stream. A guest that does not hear it cancels what nobody is attached to.
    async fn cancel(&self) {
        let call = self
            .guests
            .call(&self.guest, Method::DELETE, &self.path, Bytes::new());
        let ended: std::result::Result<Result<serde_json::Value>, _> =
            tokio::time::timeout(limits::RELAY_CANCEL_WAIT, call).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a stream was not cancelled");
        }
    }
}

/// Bytes from the guest, the connection they come over, and the connection for bytes to it.
type Attached = (Incoming, SendRequest<Empty<Bytes>>, SendRequest<Pieces>);

/// A user of the engine that is there until this is dropped.
#[derive(Debug)]
pub struct Visit {
    events: Incoming,
    _held: SendRequest<Full<Bytes>>,
}

/// A body whose pieces come through a channel.
#[derive(Debug)]
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Visit {
    /// Waits until the guest ends the visit; says why.
    pub async fn ended(&mut self) -> String {
        match next_event(&mut self.events).await {
            Ok(SessionEvent::Ended { message }) => message,
            Ok(SessionEvent::Held { .. }) => "the guest spoke out of turn".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl LinkGuests {
    /// Makes a user for as long as the answer is kept.
    pub async fn visit(&self, guest: &GuestAddress, user: UserSpec) -> Result<Visit> {
        let (mut held, _) = self.connect_for(guest).await?;
        let wanted = SessionRequest::Visit {
            user,
            hold_ms_max: u64::try_from(limits::RELAY_MAX.as_millis()).unwrap_or(u64::MAX),
        };
        let body = serde_json::to_vec(&wanted).map_err(|e| protocol(&e))?;
        let request = request(Method::POST, "/v1/sessions", Full::new(Bytes::from(body)))?;
        let answer = held
            .send_request(request)
            .await
            .map_err(|e| unreachable(&e))?;
        let mut events = accepted(answer).await?.into_body();
        match next_event(&mut events).await? {
            SessionEvent::Held { .. } => Ok(Visit {
                events,
                _held: held,
            }),
            SessionEvent::Ended { message } => Err(GuestError::Refused {
                reason: "visit".to_owned(),
                message,
            }),
        }
    }

    /// Opens a stream to the engine's port.
    pub async fn open_stream(self: &Arc<Self>, guest: &GuestAddress) -> Result<GuestStream> {
        let wanted = serde_json::to_vec(&StreamRequest::Connect).map_err(|e| protocol(&e))?;
        let opened = self.call(guest, Method::POST, "/v1/streams", Bytes::from(wanted));
        let StreamState { id, .. } = opened.await?;
        let calls = Calls {
            guests: Arc::clone(self),
            guest: guest.clone(),
            path: format!("/v1/streams/{id}"),
        };
        match self.attach(&calls).await {
            Ok((down, held, up)) => Ok(GuestStream {
                calls,
                down,
                up,
                _held: held,
            }),
            Err(error) => {
                calls.cancel().await;
                Err(error)
            }
        }
    }

    async fn attach(&self, calls: &Calls) -> Result<Attached> {
        let (mut held, _) = self.connect_for(&calls.guest).await?;
        let path = format!("{}?offset=0", calls.path);
        let request = request(Method::GET, &path, Empty::new())?;
        let answer = held
            .send_request(request)
            .await
            .map_err(|e| unreachable(&e))?;
        let down = accepted(answer).await?.into_body();
        let (up, _) = self.connect_for(&calls.guest).await?;
        Ok((down, held, up))
    }
}

impl GuestStream {
    /// Passes bytes both ways until the engine ends, or the client does; then the stream is
    /// cancelled. The deadline ends it too, and says how.
    pub async fn bridge(
        mut self,
        client: impl AsyncRead + AsyncWrite + Send,
        meter: &Meter,
        deadline: impl Future<Output = Ending> + Send,
    ) -> Ending {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let mut ending = Ending::Engine;
        let path = format!("{}?offset=0", self.calls.path);
        if let Ok(request) = request(Method::PUT, &path, Pieces(receiver)) {
            let put = self.up.send_request(request);
            let up = upward(&mut from_client, sender, meter);
            let up = async {
                // The answer comes when all that the client sent was passed on. An engine that
                // takes no more may still have something to say: its end is the other way's.
                let (_, Ended(is_by_client)) = tokio::join!(put, up);
                if !is_by_client {
                    std::future::pending::<()>().await;
                }
            };
            let down = downward(&mut self.down, &mut to_client, &self.calls, meter);
            ending = tokio::select! {
                () = up => Ending::Client,
                ending = down => ending,
                ending = deadline => ending,
            };
        }
        self.calls.cancel().await;
        // The client may be gone, or not listen.
        let bid_farewell = tokio::time::timeout(limits::RELAY_CANCEL_WAIT, to_client.shutdown());
        bid_farewell.await.ok();
        ending
    }
}

/// Whether the client ended, not the guest.
struct Ended(bool);

async fn upward(
    client: &mut (impl AsyncRead + Unpin),
    sender: mpsc::Sender<Bytes>,
    meter: &Meter,
) -> Ended {
    let mut piece = vec![0_u8; limits::RELAY_PIECE_BYTES];
    loop {
        let length = match client.read(&mut piece).await {
            Ok(0) | Err(_) => return Ended(true),
            Ok(length) => length,
        };
        let passed = sender.send(Bytes::copy_from_slice(&piece[..length])).await;
        if passed.is_err() {
            return Ended(false);
        }
        meter.add_sent(length);
    }
}

async fn downward(
    body: &mut Incoming,
    client: &mut (impl AsyncWrite + Unpin),
    calls: &Calls,
    meter: &Meter,
) -> Ending {
    let mut acknowledged = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if client.write_all(&data).await.is_err() || client.flush().await.is_err() {
            return Ending::Client;
        }
        let count = meter.add_received(data.len());
        if count - acknowledged < limits::RELAY_ACK_BYTES {
            continue;
        }
        if let Err(error) = calls.acknowledge(count).await {
            tracing::debug!(%error, "a relay ended: its bytes could not be acknowledged");
            return Ending::Engine;
        }
        acknowledged = count;
    }
    Ending::Engine
}

fn request<B>(method: Method, path: &str, body: B) -> Result<Request<B>> {
    let request = Request::builder().method(method).uri(path);
    let request = request
        .header("host", "guest")
        .header("content-type", "application/json");
    request.body(body).map_err(|e| protocol(&e))
}

/// The answer if it is no refusal.
async fn accepted(answer: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let limited = http_body_util::Limited::new(answer.into_body(), limits::GUEST_ANSWER_BYTES_MAX);
    let body = limited.collect().await.map_err(|e| protocol(&e))?;
    read::<serde_json::Value>((status, body.to_bytes())).and_then(|_| Err(protocol(&status)))
}

/// The next line of a session.
async fn next_event(events: &mut Incoming) -> Result<SessionEvent> {
    let mut line = Vec::new();
    while let Some(frame) = events.frame().await {
        let frame = frame.map_err(|e| unreachable(&e))?;
        line.extend_from_slice(&frame.into_data().unwrap_or_default());
        if line.ends_with(b"\n") || line.len() > limits::RELAY_PIECE_BYTES {
            return serde_json::from_slice(&line).map_err(|e| protocol(&e));
        }
    }
    Err(unreachable(&"the guest ended the session"))
}

fn protocol(error: &impl ToString) -> GuestError {
    GuestError::Protocol {
        why: error.to_string(),
    }
}

//! The guest protocol over a real link: HTTP/1.1 in mutual TLS.
//!
//! One idle connection per guest is kept for the next call; a call that finds it dead opens a new
//! one. Which key a guest must show is the caller's knowledge (the link row), not kept here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coffer_core::id::ServerId;
use coffer_wire::guest::v1::{
    AgentUpload, Command, CommandState, Enrolled, Enrolment, InventoryPage, Refusal, Spec,
    SpecAccepted, Status,
};
use hyper::Method;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connection::{Answer, Connection};
use super::{AgentBinary, GuestAddress, GuestError, Guests, Result};
use crate::limits;
use crate::supervise::Supervisor;
use crate::tls::{self, Renewed};

/// A connection for questions; boxed, because it moves between those who ask.
type Asking = Box<Connection<TlsStream<TcpStream>>>;

/// DNS name in a guest's link certificate.
pub fn guest_name(server_id: ServerId) -> String {
    format!("{server_id}.guest.coffer")
}

/// Guests over their links.
#[derive(Debug)]
pub struct LinkGuests {
    supervisor: Supervisor,
    /// Shared by all connections: one of its own for each would be most of what a link takes.
    tls: std::result::Result<Configs, String>,
    idle: Mutex<HashMap<ServerId, (Option<String>, Asking)>>,
}

impl LinkGuests {
    /// Speaks to guests with this client certificate; guests show one of `link_ca_pem`.
    pub fn new(supervisor: Supervisor, own: Arc<Renewed>, link_ca_pem: String) -> Self {
        Self {
            supervisor,
            tls: Configs::new(&own, &link_ca_pem).map_err(|error| error.to_string()),
            idle: Mutex::new(HashMap::new()),
        }
    }

    fn take_idle(&self, guest: &GuestAddress) -> Option<Asking> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (pinned, connection) = idle.remove(&guest.server_id)?;
        (pinned == guest.key_fingerprint).then_some(connection)
    }

    fn put_idle(&self, guest: &GuestAddress, connection: Asking) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= limits::IDLE_GUEST_CONNECTIONS_MAX {
            // Any: it may be of a guest that is gone, which nobody would ask for.
            let other = idle.keys().next().copied();
            other.and_then(|other| idle.remove(&other));
        }
        idle.insert(guest.server_id, (guest.key_fingerprint.clone(), connection));
    }

    /// A new connection, and the key that the guest showed.
    async fn connect(&self, guest: &GuestAddress) -> Result<(Asking, String)> {
        let (stream, fingerprint) = Box::pin(self.secured(guest)).await?;
        Ok((Box::new(Connection::new(stream)), fingerprint))
    }

    /// A new connection to a guest that may be just starting, hence tried closely for a moment.
    async fn connect_closely(&self, guest: &GuestAddress) -> Result<(Asking, String)> {
        let closely = async {
            loop {
                match self.connect(guest).await {
                    Err(GuestError::Unreachable { .. }) => {
                        tokio::time::sleep(limits::START_PACE).await;
                    }
                    answer => return answer,
                }
            }
        };
        match tokio::time::timeout(limits::START_PATIENCE, closely).await {
            Ok(answer) => answer,
            Err(_) => self.connect(guest).await,
        }
    }

    /// A new connection for streams, and the key that the guest showed.
    pub(super) async fn connect_for<B>(
        &self,
        guest: &GuestAddress,
    ) -> Result<(SendRequest<B>, String)>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (stream, fingerprint) = self.secured(guest).await?;
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(limits::GUEST_CONNECTION_BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&e))?;
        self.supervisor.start_short(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "guest connection ended");
            }
        });
        Ok((sender, fingerprint))
    }

    /// TLS to a guest, and the key that it showed.
    async fn secured(&self, guest: &GuestAddress) -> Result<(TlsStream<TcpStream>, String)> {
        let stream = guest.link.dial().await.map_err(|e| unreachable(&e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(&e))?;
        let config = self.client_config(guest)?;
        let name = ServerName::try_from(guest_name(guest.server_id))
            .map_err(|e| GuestError::Protocol { why: e.to_string() })?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|e| classify_handshake(&e))?;
        let fingerprint = shown_key(stream.get_ref().1, guest)?;
        Ok((stream, fingerprint))
    }

    fn client_config(&self, guest: &GuestAddress) -> Result<Arc<rustls::ClientConfig>> {
        let configs = self
            .tls
            .as_ref()
            .map_err(|why| GuestError::Protocol { why: why.clone() })?;
        Ok(Arc::clone(match guest.key_fingerprint {
            Some(_) => &configs.enrolled,
            None => &configs.any,
        }))
    }

    /// One call, over the connection that is kept or a new one.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        guest: &GuestAddress,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T> {
        if let Some(mut kept) = self.take_idle(guest)
            && let Ok(answer) = kept.ask(&method, path, &body).await
        {
            self.put_idle(guest, kept);
            return read(answer);
        }
        let (mut connection, _) = self.connect(guest).await?;
        let answer = connection.ask(&method, path, &body).await?;
        self.put_idle(guest, connection);
        read(answer)
    }

    async fn put<T: DeserializeOwned>(
        &self,
        guest: &GuestAddress,
        method: Method,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let body =
            serde_json::to_vec(body).map_err(|e| GuestError::Protocol { why: e.to_string() })?;
        self.call(guest, method, path, Bytes::from(body)).await
    }
}

/// The key that the guest showed, which has to be the pinned one where one is pinned. Nothing was
/// sent to it yet.
fn shown_key(connection: &rustls::ClientConnection, guest: &GuestAddress) -> Result<String> {
    let impostor = |why: &str| GuestError::Impostor {
        why: why.to_owned(),
    };
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| impostor("it showed no key"))?;
    let shown = tls::key_fingerprint(shown).map_err(|e| impostor(&e.to_string()))?;
    match &guest.key_fingerprint {
        Some(pinned) if *pinned != shown => Err(impostor("it showed another key than the pinned")),
        _ => Ok(shown),
    }
}

pub(super) fn unreachable(error: &impl ToString) -> GuestError {
    GuestError::Unreachable {
        why: error.to_string(),
    }
}

fn classify_handshake(error: &std::io::Error) -> GuestError {
    let is_certificate = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
        .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)));
    if is_certificate {
        GuestError::Impostor {
            why: error.to_string(),
        }
    } else {
        unreachable(error)
    }
}

pub(super) fn read<T: DeserializeOwned>((status, body): Answer) -> Result<T> {
    let why = |e: serde_json::Error| GuestError::Protocol {
        why: format!("{status}: {e}"),
    };
    if status.is_success() {
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        return serde_json::from_slice(text).map_err(why);
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(why)?;
    Err(GuestError::Refused {
        reason: refusal.reason,
        message: refusal.message,
    })
}

#[async_trait]
impl Guests for LinkGuests {
    async fn enrolment(&self, guest: &GuestAddress) -> Result<(Enrolment, String)> {
        let (mut connection, fingerprint) = self.connect_closely(guest).await?;
        let answer = connection.ask(&Method::GET, "/v1/enrol", &[]).await?;
        Ok((read(answer)?, fingerprint))
    }

    async fn enrol(&self, guest: &GuestAddress, signed: &Enrolled) -> Result<()> {
        let _: serde_json::Value = self.put(guest, Method::PUT, "/v1/enrol", signed).await?;
        Ok(())
    }

    async fn put_spec(&self, guest: &GuestAddress, spec: &Spec) -> Result<SpecAccepted> {
        self.put(guest, Method::PUT, "/v1/spec", spec).await
    }

    async fn status(&self, guest: &GuestAddress, after: u64, wait: Duration) -> Result<Status> {
        let path = format!("/v1/status?after={after}&wait_ms={}", wait.as_millis());
        self.call(guest, Method::GET, &path, Bytes::new()).await
    }

    async fn start_command(&self, guest: &GuestAddress, command: &Command) -> Result<CommandState> {
        self.put(guest, Method::POST, "/v1/commands", command).await
    }

    async fn poll_command(
        &self,
        guest: &GuestAddress,
        id: &str,
        wait: Duration,
    ) -> Result<CommandState> {
        let path = format!("/v1/commands/{id}?wait_ms={}", wait.as_millis());
        self.call(guest, Method::GET, &path, Bytes::new()).await
    }

    async fn inventory(
        &self,
        guest: &GuestAddress,
        after: Option<&str>,
        limit: u32,
    ) -> Result<InventoryPage> {
        let after = after
            .map(|a| format!("&after={}", percent(a)))
            .unwrap_or_default();
        let path = format!("/v1/inventory?limit={limit}{after}");
        self.call(guest, Method::GET, &path, Bytes::new()).await
    }

    async fn send_agent(
        &self,
        guest: &GuestAddress,
        agent: &AgentBinary,
        offset: u64,
        piece: &[u8],
    ) -> Result<AgentUpload> {
        let AgentBinary { sha256, length, .. } = agent;
        let path = format!("/v1/agent/{sha256}?offset={offset}&length={length}");
        let piece = Bytes::copy_from_slice(piece);
        self.call(guest, Method::PUT, &path, piece).await
    }

    async fn replace_agent(&self, guest: &GuestAddress, sha256: &str) -> Result<AgentUpload> {
        let path = format!("/v1/agent/{sha256}");
        self.call(guest, Method::POST, &path, Bytes::new()).await
    }
}

/// Percent-encodes everything but unreserved characters.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Why TLS towards guests cannot be set up.
type SetupError = Box<dyn std::error::Error + Send + Sync>;

/// TLS towards guests.
#[derive(Debug)]
struct Configs {
    /// A certificate of our authority is demanded.
    enrolled: Arc<rustls::ClientConfig>,
    /// Before enrolment: any certificate, whose key is then reported.
    any: Arc<rustls::ClientConfig>,
}

impl Configs {
    fn new(own: &Arc<Renewed>, link_ca_pem: &str) -> std::result::Result<Self, SetupError> {
        let mut roots = rustls::RootCertStore::empty();
        for cert in tls::certificates(link_ca_pem)? {
            roots.add(cert)?;
        }
        let provider = tls::provider();
        let inner = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .build()?;
        let config = |is_enrolled| -> std::result::Result<_, SetupError> {
            let verifier = GuestVerifier {
                inner: Arc::clone(&inner),
                is_enrolled,
            };
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_cert_resolver(own.clone());
            // Links are held for days; what is kept for the next handshake is not worth its room.
            config.resumption = rustls::client::Resumption::disabled();
            Ok(Arc::new(config))
        };
        Ok(Self {
            enrolled: config(true)?,
            any: config(false)?,
        })
    }
}

/// Accepts certificates under our authority; before enrolment any.
#[derive(Debug)]
struct GuestVerifier {
    inner: Arc<rustls::client::WebPkiServerVerifier>,
    is_enrolled: bool,
}

impl ServerCertVerifier for GuestVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if !self.is_enrolled {
            return Ok(ServerCertVerified::assertion());
        }
        let inner = &self.inner;
        let ends =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match ends {
            // Coffer was away for a year. Who the guest is tells its key, which it proves to hold
            // and which is compared with the pinned one before anything is said; it is enrolled
            // anew then.
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

//! Accepts connections for the API: TLS of Coffer's own CA, or plain HTTP on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use coffer_control::api::ClientAddress;
use coffer_control::places::Places;
use coffer_control::supervise::Supervisor;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Connections of one client address; more are closed at once.
const CONNECTIONS_PER_ADDRESS: usize = 512;
/// Time a client has for its TLS handshake or a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// A listening API.
pub(crate) struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Listens; TLS unless there is none.
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: Option<rustls::ServerConfig>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address}: is another Coffer there? give another api.listen")
        })?;
        Ok(Self {
            listener,
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until told to stop.
    pub(crate) async fn run(self, router: Router, supervisor: Supervisor) {
        let token = supervisor.token();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let places = Places::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS);
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(place) = places.take(&peer.ip().to_string()) else {
                tracing::debug!(%peer, "too many connections of one address");
                continue;
            };
            let router = router.clone();
            let tls = self.tls.clone();
            let token = token.clone();
            supervisor.start("api connection", async move {
                connection(stream, peer, tls, router, token).await;
                drop((slot, place));
            });
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    token: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set no delay");
    }
    match tls {
        None => serve(stream, peer, router, token).await,
        Some(acceptor) => match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, peer, router, token).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, router: Router, token: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(peer.ip()));
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

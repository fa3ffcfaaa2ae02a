//! Listening: TCP, TLS with a client certificate, HTTP/1.1; one task per connection.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::agent::{Shared, routes};
use crate::limits;
use crate::log;

/// Listens on an address; one that is not there yet is waited for.
pub(crate) async fn listen_at(shared: Arc<Shared>, config: Arc<ServerConfig>, address: SocketAddr) {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !is_told => {
                log::warn(format_args!("listen on {address}: {error}; tried again"));
                is_told = true;
            }
            Err(_) => tokio::time::sleep(limits::BIND_RETRY).await,
        }
    };
    listen(shared, config, listener).await;
}

/// Accepts connections for as long as the agent runs.
pub(crate) async fn listen(shared: Arc<Shared>, config: Arc<ServerConfig>, listener: TcpListener) {
    let acceptor = TlsAcceptor::from(config);
    if let Err(error) = shared.keeper.ready().await {
        log::warn(format_args!("tell init that the agent serves: {error}"));
    }
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                log::warn(format_args!("accept a connection: {error}"));
                tokio::time::sleep(limits::BIND_RETRY).await;
                continue;
            }
        };
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        let tasks = Arc::clone(&shared.tasks);
        tasks.start(async move {
            Box::pin(connection(shared, acceptor, socket)).await;
            drop(place);
        });
    }
}

async fn connection(shared: Arc<Shared>, acceptor: TlsAcceptor, socket: TcpStream) {
    notice_dead_peers(&socket);
    let handshake = tokio::time::timeout(limits::HANDSHAKE, acceptor.accept(socket)).await;
    // Strangers are turned away without a word in the log: anyone on the network could fill it.
    let Ok(Ok(stream)) = handshake else { return };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(routes::route(&shared, request).await) }
    });
    // How a connection ends concerns the one who dialled.
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_headers(32)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// A peer that is gone without a word is noticed within half a minute: what a session holds ends
/// then.
fn notice_dead_peers(socket: &TcpStream) {
    socket.set_nodelay(true).ok();
    setsockopt(socket, sockopt::KeepAlive, &true).ok();
    setsockopt(socket, sockopt::TcpKeepIdle, &10).ok();
    setsockopt(socket, sockopt::TcpKeepInterval, &5).ok();
    setsockopt(socket, sockopt::TcpKeepCount, &3).ok();
    setsockopt(socket, sockopt::TcpUserTimeout, &25_000).ok();
}

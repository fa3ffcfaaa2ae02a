//! Where APIs reach a tracker: mutual TLS of Coffer's own authority for relays, one line that
//! names a grant, and then whatever the grant is for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::id::TrackerId;
use coffer_core::tracker::Tracker;
use coffer_store::Store;
use coffer_wire::relay::{Opening, Reply};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::register::Register;
use super::relay::{Refused, Relays};
use super::{read_line, tracker_name, write_line};
use crate::clock::Clock;
use crate::limits;
use crate::supervise::Supervisor;
use crate::tls::{self, AltNames, Authority, Renewed, Usage};

/// A stream from an API.
pub(super) type Stream = BufReader<TlsStream<TcpStream>>;

/// What a tracker is told.
#[derive(Debug)]
pub struct Settings {
    /// Its id.
    pub id: TrackerId,
    /// Provider whose guests it reaches.
    pub provider: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Time after which another tracker that gives no sign is forgotten.
    pub lease: Duration,
    /// Whether no other process uses the store.
    pub is_alone: bool,
}

/// A tracker that is known and listens.
pub struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    relays: Arc<Relays>,
    clock: Arc<dyn Clock>,
    register: Register,
    /// What was accepted and has not said yet what it wants.
    handshakes: Arc<Semaphore>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// Listens, and then says so in the store.
    pub async fn bind(
        settings: Settings,
        store: Store,
        authority: Authority,
        clock: Arc<dyn Clock>,
        relays: Relays,
    ) -> std::io::Result<Self> {
        let Settings {
            id,
            provider,
            listen,
            lease,
            is_alone,
        } = settings;
        let listener = TcpListener::bind(listen).await?;
        let ca_pem = authority.cert_pem.clone();
        let names = AltNames {
            names: vec![tracker_name(id)],
            addresses: vec![],
        };
        let own = Renewed::new(authority, "tracker", names, Usage::Server, clock.clone())
            .map_err(std::io::Error::other)?;
        let config = tls::relay_server_config(Arc::new(own), &ca_pem);
        let own = Tracker {
            id,
            provider,
            address: listener.local_addr()?.to_string(),
            beat: 0,
            started_at: clock.now(),
        };
        let register = Register::enter(store, own, lease, is_alone).await;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config.map_err(std::io::Error::other)?)),
            relays: Arc::new(relays),
            clock,
            register: register.map_err(std::io::Error::other)?,
            handshakes: Arc::new(Semaphore::new(limits::RELAY_HANDSHAKES_MAX)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves APIs until told to stop.
    pub async fn run(self, supervisor: Supervisor) {
        let token = supervisor.token();
        let (clock, register) = (Arc::clone(&self.clock), self.register);
        let until = token.clone();
        supervisor.start("tracker's signs of life", async move {
            register.run(&*clock, until).await;
        });
        loop {
            let Ok(handshake) = Arc::clone(&self.handshakes).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, relays) = (self.acceptor.clone(), Arc::clone(&self.relays));
                    let clock = Arc::clone(&self.clock);
                    supervisor.start("relay", async move {
                        serve(stream, peer, acceptor, handshake, &relays, &*clock).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept an API's stream");
                    self.clock.sleep(limits::SILENT_PACE).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handshake: OwnedSemaphorePermit,
    relays: &Relays,
    clock: &dyn Clock,
) {
    let heard = tokio::select! {
        heard = hear(stream, acceptor) => heard,
        () = relays.token().cancelled() => return,
        () = clock.sleep(limits::RELAY_HEAD_WAIT) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    drop(handshake);
    // Whoever only looks whether the tracker is there says nothing.
    let (mut stream, opening) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            tracing::debug!(%peer, %error, "a stream to the relay did not begin");
            return;
        }
    };
    let opened = tokio::select! {
        opened = relays.open(&opening) => opened,
        () = relays.token().cancelled() => return,
    };
    match opened {
        Ok(relay) => match write_line(&mut stream, &Reply::Opened).await {
            Ok(()) => relay.run(stream).await,
            Err(error) => tracing::debug!(%peer, %error, "an API has left its relay"),
        },
        Err(refused) => refuse(stream, refused).await,
    }
}

async fn hear(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<(Stream, Opening)> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let opening = read_line(&mut stream).await?;
    Ok((stream, opening))
}

async fn refuse(mut stream: Stream, refused: Refused) {
    let Refused {
        why,
        message,
        context,
    } = refused;
    tracing::debug!(?why, message, context, "a relay is refused");
    let reply = Reply::Refused {
        why,
        message,
        context,
    };
    let said = async {
        write_line(&mut stream, &reply).await?;
        stream.shutdown().await
    };
    // The API may be gone, or not listen.
    let said = tokio::time::timeout(limits::RELAY_CANCEL_WAIT, said).await;
    if let Ok(Err(error)) = said {
        tracing::debug!(%error, "an API did not hear that its relay is refused");
    }
}

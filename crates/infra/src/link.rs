//! The ways into a guest: a closed set, because the control side owns all of them.
//!
//! The guest listens and never dials. A link gives a byte stream; the protocol and its TLS are
//! spoken over it by `coffer_control::guest`.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::error::{ProviderError, Result};

/// How the control side reaches one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLink {
    /// Enter a network namespace on a throw-away thread, connect there, hand the socket back.
    Netns {
        /// Path of the namespace (`/run/netns/…`).
        path: String,
        /// Address of the agent inside it: its loopback for the instance's own namespace, the
        /// instance's address when the namespace is the tenant network's (a tracker's port).
        address: SocketAddr,
    },
    /// Connect directly: the guest shares our network (no namespaces on this host).
    Direct {
        /// Address of the agent.
        address: SocketAddr,
    },
    /// Nothing leads there: the fake provider's guests are reached in memory.
    None,
}

impl GuestLink {
    /// Connects to the agent; bounded by the caller's deadline.
    pub async fn dial(&self) -> Result<TcpStream> {
        match self {
            Self::Netns { path, address } => crate::local::netns::connect_in(path, *address).await,
            Self::Direct { address } => {
                TcpStream::connect(address)
                    .await
                    .map_err(|e| ProviderError::Transient {
                        what: "dial guest",
                        why: e.to_string(),
                    })
            }
            Self::None => Err(ProviderError::Bug {
                what: "dial guest",
                why: "no link form".to_owned(),
            }),
        }
    }
}

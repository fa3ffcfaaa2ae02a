//! The ways into a guest: a closed set, because the control side owns all of them.
//!
//! The guest listens and never dials. A link gives a byte stream; the protocol and its TLS are
//! spoken over it by `coffer_control::guest`.

use std::net::SocketAddr;

use coffer_core::server::LinkForm;
use tokio::net::TcpStream;

use crate::error::{ProviderError, Result};

/// How the control side reaches one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLink {
    /// Enter a network namespace on a throw-away thread, connect there, hand the socket back.
    Netns {
        /// Path of the instance's own namespace (`/run/netns/…`).
        path: String,
        /// Address of the agent inside it: its loopback.
        address: SocketAddr,
    },
    /// As a member of the tenant network: connect from a port that the tracker has there, with an
    /// address of its own, to the instance's address.
    TrackerPort {
        /// Path of the namespace that the tracker's port is in.
        path: String,
        /// Address of the agent in the tenant network.
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
    /// The form as it is remembered, and the agent's address in it; `None` where nobody asks.
    pub const fn form(&self) -> Option<(LinkForm, SocketAddr)> {
        match self {
            Self::Netns { address, .. } => Some((LinkForm::Netns, *address)),
            Self::TrackerPort { address, .. } => Some((LinkForm::TrackerPort, *address)),
            Self::Direct { .. } | Self::None => None,
        }
    }

    /// Connects to the agent; bounded by the caller's deadline.
    pub async fn dial(&self) -> Result<TcpStream> {
        match self {
            Self::Netns { path, address } | Self::TrackerPort { path, address } => {
                crate::local::netns::connect_in(path, *address).await
            }
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

//! The guest protocol as the control side speaks it: one trait for workflows and conductor, and
//! its implementation over any link.

mod agent;
mod client;
mod connection;
mod stream;

pub use agent::AgentBinary;
pub use client::{LinkGuests, guest_name};
pub use stream::{Ending, GuestStream, Meter, Visit};

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::id::ServerId;
use coffer_infra::link::GuestLink;
use coffer_wire::guest::v1::{
    AgentUpload, Command, CommandState, Enrolled, Enrolment, InventoryPage, Spec, SpecAccepted,
    Status,
};
use thiserror::Error;

/// Where a guest is, and which key it must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestAddress {
    /// Our id of its server.
    pub server_id: ServerId,
    /// The way in.
    pub link: GuestLink,
    /// SHA-256 of its public key, hex; `None` before enrolment.
    pub key_fingerprint: Option<String>,
}

/// What a guest call may end in instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GuestError {
    /// No answer: it does not listen, the link is down, or time ran out.
    #[error("the guest does not answer: {why}")]
    Unreachable {
        /// The cause, for the log.
        why: String,
    },
    /// It showed another key than the pinned one, or no certificate of ours.
    #[error("the guest is not who it should be: {why}")]
    Impostor {
        /// The cause.
        why: String,
    },
    /// It refused.
    #[error("the guest refused ({reason}): {message}")]
    Refused {
        /// Stable code.
        reason: String,
        /// In words.
        message: String,
    },
    /// It answered something that is not the protocol.
    #[error("the guest's answer cannot be read: {why}")]
    Protocol {
        /// The cause.
        why: String,
    },
}

impl GuestError {
    /// Whether the guest refused only for as long as something else goes on there: its engine is
    /// down and comes back, or it has enough to do.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == "engine-down" || reason == "busy")
    }
}

/// Result of a guest call.
pub type Result<T> = std::result::Result<T, GuestError>;

/// Guests as workflows and conductor see them.
#[async_trait]
pub trait Guests: Send + Sync + Debug {
    /// Asks for the guest's certificate requests, and says which key it showed: (answer, SHA-256
    /// of the public key, hex).
    async fn enrolment(&self, guest: &GuestAddress) -> Result<(Enrolment, String)>;

    /// Gives it its signed certificate.
    async fn enrol(&self, guest: &GuestAddress, signed: &Enrolled) -> Result<()>;

    /// Tells it what should be.
    async fn put_spec(&self, guest: &GuestAddress, spec: &Spec) -> Result<SpecAccepted>;

    /// Asks what is: as soon as its sequence exceeds `after`, or when `wait` is over.
    async fn status(&self, guest: &GuestAddress, after: u64, wait: Duration) -> Result<Status>;

    /// Starts a command, once per id.
    async fn start_command(&self, guest: &GuestAddress, command: &Command) -> Result<CommandState>;

    /// Asks where a command stands, waiting at most `wait` for its end.
    async fn poll_command(
        &self,
        guest: &GuestAddress,
        id: &str,
        wait: Duration,
    ) -> Result<CommandState>;

    /// One page of its inventory.
    async fn inventory(
        &self,
        guest: &GuestAddress,
        after: Option<&str>,
        limit: u32,
    ) -> Result<InventoryPage>;

    /// Gives the agent a piece of another agent's binary, from an offset on; what it has is
    /// skipped.
    async fn send_agent(
        &self,
        guest: &GuestAddress,
        agent: &AgentBinary,
        offset: u64,
        piece: &[u8],
    ) -> Result<AgentUpload>;

    /// Lets the guest's first process run the agent whose whole binary was sent.
    async fn replace_agent(&self, guest: &GuestAddress, sha256: &str) -> Result<AgentUpload>;
}

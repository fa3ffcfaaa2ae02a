//! The tracker: the control side's way into tenant networks, and what goes through it by hand.
//!
//! Nothing leads from a guest to the control side; whoever wants to speak to one is brought to it
//! from here.

pub mod relay;

use std::fmt::Debug;

use coffer_core::id::ServerId;
use coffer_infra::Provider;
use coffer_infra::link::GuestLink;

/// Knows the way into guests.
pub trait Links: Send + Sync + Debug {
    /// The way into the guest of a server.
    fn link(&self, server_id: ServerId) -> GuestLink;
}

impl<P: Provider + ?Sized> Links for P {
    fn link(&self, server_id: ServerId) -> GuestLink {
        self.guest_link(server_id)
    }
}

//! Trackers: who brings the control side into instances by hand, and leave to be brought there.

use crate::actor::Actor;
use crate::id::{InstanceId, TenantId, TrackerId};
use crate::time::Timestamp;
use crate::word_enum;

word_enum! {
    /// What somebody is brought to an instance for.
    RelayPurpose, "purpose of a relay" {
        /// Bytes to and from the engine's port.
        Connect = "connect",
        /// A user of the engine that is there as long as the relay.
        Visit = "visit",
    }
}

/// One run of a tracker, as the others on the store know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    /// Its id; a tracker that starts again has another.
    pub id: TrackerId,
    /// Provider whose guests it reaches.
    pub provider: String,
    /// Where its relay listens.
    pub address: String,
    /// A counter that it moves while it lives; no clock is compared with another host's.
    pub beat: u64,
    /// When it started.
    pub started_at: Timestamp,
}

/// Leave to be brought to one instance once, for one purpose, by one tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// SHA-256 of the secret that its holder shows, hex.
    pub hash: String,
    /// The tracker that takes it.
    pub tracker_id: TrackerId,
    /// Project of the instance.
    pub tenant_id: TenantId,
    /// The instance.
    pub instance_id: InstanceId,
    /// What for.
    pub purpose: RelayPurpose,
    /// It ends when the tracker's counter comes here.
    pub until: u64,
    /// Who asked.
    pub actor: Actor,
}

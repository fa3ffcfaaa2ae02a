//! Servers and volumes: what a provider runs and keeps for an instance, as rows of their own.

use crate::id::{InstanceId, LinkId, ServerId, TenantId, VolumeId};
use crate::time::Timestamp;
use crate::units::{Incarnation, VolumeSize};
use crate::word_enum;

word_enum! {
    /// Why a server exists.
    ServerPurpose, "server purpose" {
        /// It runs an instance.
        Instance = "instance",
        /// It proves a backup by restoring it.
        Proof = "proof",
        /// It runs an upgrade with two roots.
        Upgrade = "upgrade",
        /// It extracts part of a backup.
        Extract = "extract",
        /// It reads a volume for somebody.
        Reader = "reader",
    }
}

word_enum! {
    /// What a volume holds.
    VolumeRole, "volume role" {
        /// The data directory in use.
        Data = "data",
        /// A data directory put aside, to be taken back or deleted.
        Aside = "aside",
        /// A data directory that may become the one in use.
        Candidate = "candidate",
        /// A provider snapshot.
        Snapshot = "snapshot",
    }
}

word_enum! {
    /// What we last knew of a row that mirrors a provider's object.
    Presence, "presence" {
        /// The row was written, the provider was not asked yet.
        Planned = "planned",
        /// The provider said it is there.
        Present = "present",
        /// The provider is asked to delete it.
        Deleting = "deleting",
    }
}

/// A machine, container or sandbox of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Our id; the provider's object carries it as a tag.
    pub id: ServerId,
    /// Project it is accounted to.
    pub tenant_id: TenantId,
    /// Instance it runs, if any.
    pub instance_id: Option<InstanceId>,
    /// Why it exists.
    pub purpose: ServerPurpose,
    /// Name of the provider that runs it.
    pub provider: String,
    /// The provider's own id, once it has one.
    pub provider_ref: Option<String>,
    /// Which rebuild this is.
    pub incarnation: Incarnation,
    /// Host it runs on, as the provider names it.
    pub host: Option<String>,
    /// Checksums of the read-only roots it mounts, the engine's own first.
    pub roots: Vec<String>,
    /// What we last knew of it.
    pub presence: Presence,
    /// When the row was written.
    pub created_at: Timestamp,
}

/// A disk of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Our id; the provider's object carries it as a tag.
    pub id: VolumeId,
    /// Project it is accounted to.
    pub tenant_id: TenantId,
    /// Instance it belongs to; a volume may outlive it.
    pub instance_id: Option<InstanceId>,
    /// Server it is attached to.
    pub server_id: Option<ServerId>,
    /// What it holds.
    pub role: VolumeRole,
    /// Name of the provider that keeps it.
    pub provider: String,
    /// The provider's own id, once it has one.
    pub provider_ref: Option<String>,
    /// Which rebuild this is.
    pub incarnation: Incarnation,
    /// Its size.
    pub size: VolumeSize,
    /// Volume type asked for.
    pub volume_type: Option<String>,
    /// Volume it was cloned or snapshotted from.
    pub parent: Option<VolumeId>,
    /// Checksum of the root whose template it was cloned from.
    pub template: Option<String>,
    /// What we last knew of it.
    pub presence: Presence,
    /// When the row was written.
    pub created_at: Timestamp,
}

word_enum! {
    /// How the control side reaches a guest.
    LinkForm, "link form" {
        /// By entering the instance's own network namespace.
        Netns = "netns",
        /// From a tracker that is a member of the tenant network.
        TrackerPort = "tracker-port",
        /// By a stdio pipe through the provider's API.
        Exec = "exec",
        /// Through a tracker process on another host.
        Remote = "remote",
    }
}

/// The way into a guest, and what pins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    /// Server it leads to.
    pub server_id: ServerId,
    /// How it is dialled.
    pub form: LinkForm,
    /// Where the agent listens, as the form names it (`127.0.0.1:7070`, `10.0.0.5:7070`).
    pub address: String,
    /// SHA-256 of the guest's public key, hex; pinned at the first dial.
    pub key_fingerprint: Option<String>,
    /// Version of the agent, once heard.
    pub agent_version: Option<String>,
    /// Last sequence number of the guest's status that was ingested.
    pub position: u64,
}

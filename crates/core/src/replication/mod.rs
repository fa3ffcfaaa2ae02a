//! Replication sets and their endpoints: who is primary, and where clients reach it.

use std::net::IpAddr;

use crate::access::Cidr;
use crate::id::{EndpointId, InstanceId, NetworkId, SetId, TenantId};
use crate::units::{Generation, Timeline};
use crate::word_enum;

word_enum! {
    /// How the members of a set share writes.
    SetMode, "set mode" {
        /// One primary at the most; the store enforces it.
        SinglePrimary = "single-primary",
        /// Every member accepts writes.
        MultiPrimary = "multi-primary",
        /// One shard of a cluster.
        Shard = "shard",
    }
}

word_enum! {
    /// What a member of a set does.
    Role, "role" {
        /// Accepts writes.
        Primary = "primary",
        /// Follows the primary.
        Replica = "replica",
    }
}

word_enum! {
    /// What an endpoint is for.
    EndpointKind, "endpoint kind" {
        /// Leads to the primary.
        Write = "write",
        /// Leads to a member that may be behind.
        Read = "read",
    }
}

/// A primary and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSet {
    /// Its id.
    pub id: SetId,
    /// Project that owns it.
    pub tenant_id: TenantId,
    /// How members share writes.
    pub mode: SetMode,
    /// Fencing number; grows with every change of primary.
    pub generation: Generation,
    /// Which of its histories the set is on.
    pub timeline: Timeline,
    /// The member that accepts writes.
    pub primary: Option<InstanceId>,
}

/// The published form of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Address that clients outside the tenant's network use.
    pub address: IpAddr,
    /// Port there.
    pub port: u16,
}

/// The stable address of a set. A failover moves it and rewrites nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Set it leads to.
    pub set_id: SetId,
    /// Writes or reads.
    pub kind: EndpointKind,
    /// Tenant network it is on.
    pub network_id: NetworkId,
    /// Address in that network.
    pub network_address: IpAddr,
    /// The engine's port, in the network and where it has an address of its own.
    pub port: u16,
    /// Published address, if asked for.
    pub published: Option<Published>,
    /// Who may reach the published address; empty means anyone.
    pub allowed_cidrs: Vec<Cidr>,
    /// Member it leads to now.
    pub target: Option<InstanceId>,
}

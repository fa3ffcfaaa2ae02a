//! The instance: what a tenant asked for, and what became of it.
//!
//! An instance *has* servers and volumes; it is none. What the tenant asked is the spec; what
//! Coffer is doing with it is the lifecycle (only the task manager changes it); what the guest
//! says of the engine is the health (only the conductor changes it).

mod status;

pub use status::{Health, Lifecycle, OperatingStatus, Status, public_status};

use crate::access::Access;
use crate::id::{DatastoreVersionId, FlavorId, InstanceId, NetworkId, SetId, TenantId};
use crate::name::Name;
use crate::time::Timestamp;
use crate::units::{Generation, Incarnation, VolumeSize};

/// What the tenant asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Name as given; names of instances may repeat.
    pub name: Name,
    /// Flavor asked for.
    pub flavor_id: FlavorId,
    /// Size of the data volume.
    pub volume: VolumeSize,
    /// Volume type asked for, if any.
    pub volume_type: Option<String>,
    /// Version of the datastore.
    pub datastore_version_id: DatastoreVersionId,
    /// Network the instance is a member of.
    pub network_id: NetworkId,
    /// Availability zone asked for, if any.
    pub zone: Option<String>,
    /// Who may reach it from outside its network.
    pub access: Access,
}

/// One managed database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Project that owns it.
    pub tenant_id: TenantId,
    /// Replication set it belongs to; every instance is in one, alone at first.
    pub set_id: SetId,
    /// What was asked.
    pub spec: InstanceSpec,
    /// What Coffer is doing with it.
    pub lifecycle: Lifecycle,
    /// What the guest says of its engine.
    pub health: Health,
    /// Number of rebuilds of its server.
    pub incarnation: Incarnation,
    /// Why it is in ERROR, if it is.
    pub fault: Option<Fault>,
    /// Bytes used on the data volume, when the guest has said so.
    pub volume_used_bytes: Option<u64>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Last change of its row.
    pub updated_at: Timestamp,
    /// Last change of its health.
    pub health_at: Timestamp,
}

impl Instance {
    /// The words that Trove's clients see.
    pub fn public_status(&self) -> (Status, OperatingStatus) {
        public_status(self.lifecycle, self.health)
    }
}

/// Why an instance is in ERROR, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, where, and what to do: for the tenant.
    pub message: String,
    /// The private cause: for the operator.
    pub details: String,
    /// When it was found.
    pub at: Timestamp,
}

/// What the conductor heard from a guest about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Instance it is about.
    pub instance_id: InstanceId,
    /// Generation the guest holds.
    pub generation: Generation,
    /// Health of its engine.
    pub health: Health,
    /// Bytes used on the data volume.
    pub volume_used_bytes: u64,
    /// Size of the data volume's file system in bytes.
    pub volume_total_bytes: u64,
    /// Change counter of databases, users and grants.
    pub inventory_counter: u64,
    /// Which run of its engine this is: differs whenever the engine was started anew. None while
    /// no engine runs.
    pub engine_run: Option<String>,
    /// When it was heard.
    pub at: Timestamp,
}

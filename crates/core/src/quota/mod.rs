//! Quotas: how much a project may hold of each resource.

use crate::word_enum;

word_enum! {
    /// What is counted.
    Resource, "quota resource" {
        /// Number of instances.
        Instances = "instances",
        /// Memory of all instances; unit: MiB.
        Ram = "ram",
        /// Number of backups.
        Backups = "backups",
        /// Size of all volumes; unit: GiB.
        Volumes = "volumes",
    }
}

impl Resource {
    /// Trove's default limit; -1 means unlimited.
    pub const fn default_limit(self) -> i64 {
        match self {
            Self::Instances => 10,
            Self::Ram => -1,
            Self::Backups => 50,
            Self::Volumes => 40,
        }
    }
}

/// Limits that hold where nobody set one; -1 means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultLimits {
    /// Number of instances.
    pub instances: i64,
    /// Memory of all instances; unit: MiB.
    pub ram_mib: i64,
    /// Number of backups.
    pub backups: i64,
    /// Size of all volumes; unit: GiB.
    pub volumes_gib: i64,
}

impl Default for DefaultLimits {
    fn default() -> Self {
        Self {
            instances: Resource::Instances.default_limit(),
            ram_mib: Resource::Ram.default_limit(),
            backups: Resource::Backups.default_limit(),
            volumes_gib: Resource::Volumes.default_limit(),
        }
    }
}

impl DefaultLimits {
    /// The limit of one resource.
    pub const fn of(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Instances => self.instances,
            Resource::Ram => self.ram_mib,
            Resource::Backups => self.backups,
            Resource::Volumes => self.volumes_gib,
        }
    }
}

/// One resource of one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// What is counted.
    pub resource: Resource,
    /// How much may be held; -1 means unlimited.
    pub limit: i64,
    /// How much is held.
    pub in_use: i64,
    /// How much is asked for by requests under way.
    pub reserved: i64,
}

/// An amount of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// What is counted.
    pub resource: Resource,
    /// How much; positive.
    pub amount: i64,
}

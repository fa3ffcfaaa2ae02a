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

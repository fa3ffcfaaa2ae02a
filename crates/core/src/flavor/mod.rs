//! Flavors, volume types and zones: what sizes and places the operator offers.

use crate::id::FlavorId;
use crate::name::Name;
use crate::time::Timestamp;
use crate::units::IoLimits;

/// CPU and memory size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Its id, free text.
    pub id: FlavorId,
    /// Its name, unique.
    pub name: Name,
    /// Memory; unit: MiB.
    pub memory_mib: u32,
    /// CPUs.
    pub vcpus: u32,
    /// Disk as shown to clients; unit: GiB. Data lives on volumes.
    pub disk_gib: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A kind of volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeType {
    /// Its name, unique.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// How fast each volume of it may be read and written.
    pub io: IoLimits,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An availability zone that requests may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name, unique.
    pub name: Name,
    /// When it was made.
    pub created_at: Timestamp,
}

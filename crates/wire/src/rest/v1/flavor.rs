//! Flavors and volume types, as tenants read them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::v1::common::Link;

/// Every flavor.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlavorList {
    /// The flavors.
    pub flavors: Vec<Flavor>,
}

/// One flavor.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlavorEnvelope {
    /// The flavor.
    pub flavor: Flavor,
}

/// CPU and memory size.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Flavor {
    /// Its id where that is all digits, else null.
    #[schema(required = true)]
    pub id: Option<u64>,
    /// Its id.
    pub str_id: String,
    /// Its name.
    pub name: String,
    /// Memory; unit: MiB.
    pub ram: u32,
    /// CPUs.
    pub vcpus: u32,
    /// Disk; unit: GiB. Data lives on volumes.
    pub disk: u32,
    /// Always 0.
    pub ephemeral: u32,
    /// Where it is.
    pub links: Vec<Link>,
}

/// Every volume type.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VolumeTypeList {
    /// The volume types.
    pub volume_types: Vec<VolumeType>,
}

/// A kind of volume.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VolumeType {
    /// Its id, which is its name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Always true.
    pub is_public: bool,
    /// What it is for.
    pub description: String,
    /// Most read operations a second of each volume; null where nothing limits them.
    #[schema(required = true)]
    pub read_iops_sec: Option<u64>,
    /// Most write operations a second.
    #[schema(required = true)]
    pub write_iops_sec: Option<u64>,
    /// Most bytes read a second.
    #[schema(required = true)]
    pub read_bytes_sec: Option<u64>,
    /// Most bytes written a second.
    #[schema(required = true)]
    pub write_bytes_sec: Option<u64>,
}

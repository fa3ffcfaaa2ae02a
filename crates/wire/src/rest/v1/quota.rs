//! Quotas of a project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `GET /mgmt/quotas/{project}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuotaList {
    /// One entry per resource.
    pub quotas: Vec<Quota>,
}

/// One resource of one project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// `instances`, `ram` (MiB), `backups` or `volumes` (GiB).
    pub resource: String,
    /// How much is held.
    pub in_use: i64,
    /// How much requests under way ask for.
    pub reserved: i64,
    /// How much may be held; -1 means unlimited.
    pub limit: i64,
}

/// Body and answer of `PUT /mgmt/quotas/{project}`: not the shape of the read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuotaUpdate {
    /// New limits by resource; null leaves one as it is.
    pub quotas: BTreeMap<String, Option<i64>>,
}

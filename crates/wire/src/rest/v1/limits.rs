//! Limits: quotas and rate limits in one list, the quotas first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `GET /limits`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    /// The quotas, then one entry per limited verb: clients take the first off by its place.
    pub limits: Vec<Limit>,
}

/// One entry.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Limit {
    /// The quotas of the project.
    Absolute(AbsoluteLimit),
    /// The rate of one verb.
    Rate(RateLimit),
}

/// The quotas of the project; -1 means unlimited.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AbsoluteLimit {
    /// Always `ABSOLUTE`.
    pub verb: String,
    /// Instances.
    pub max_instances: i64,
    /// Memory; unit: MiB.
    pub max_ram: i64,
    /// Backups.
    pub max_backups: i64,
    /// Volumes; unit: GiB.
    pub max_volumes: i64,
}

/// How often a verb may be used.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RateLimit {
    /// The verb.
    pub verb: String,
    /// Which paths, for people.
    pub uri: String,
    /// Which paths, as an expression.
    pub regex: String,
    /// Requests per unit.
    pub value: u32,
    /// Requests left now.
    pub remaining: u32,
    /// The unit of time.
    pub unit: String,
    /// When the next request is allowed; with a zone, unlike every other time.
    #[serde(rename = "nextAvailable")]
    pub next_available: String,
}

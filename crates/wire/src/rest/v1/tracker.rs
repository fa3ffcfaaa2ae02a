//! Trackers, as the operator sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tracker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tracker {
    /// Its id, another after each start.
    pub id: String,
    /// Provider whose guests it reaches.
    pub provider: String,
    /// Where its relay listens.
    pub address: String,
    /// Instances that are connected to through it.
    pub links: u64,
    /// Whether the API that was asked reaches it now.
    pub answers: bool,
    /// When it started.
    pub started: String,
}

/// Every tracker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TrackerList {
    /// The trackers.
    pub trackers: Vec<Tracker>,
}

//! Networks of a project: ids that are valid in `nics`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every network of the project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkList {
    /// The networks.
    pub networks: Vec<Network>,
}

/// One network.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkEnvelope {
    /// The network.
    pub network: Network,
}

/// A network of a project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Project that owns it.
    pub project_id: String,
    /// Its address range.
    pub subnet: String,
    /// Whether instances that name no network join it.
    pub is_default: bool,
    /// When it was made.
    pub created: String,
}

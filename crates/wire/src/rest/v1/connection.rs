//! Connecting by hand: what a client has to know, and users made for the occasion.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Protocol that `POST /instances/{id}/connect` upgrades to: the engine's own bytes.
pub const RELAY_PROTOCOL: &str = "coffer-relay";

/// What a client has to know to reach an instance's engine through the relay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Engine (`postgresql`), which tells the client program.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// Name in the engine's certificate.
    pub host_name: String,
    /// Certificate of the CA that signed it, PEM.
    pub ca_pem: String,
    /// Databases, the first hundred by name.
    pub databases: Vec<String>,
}

/// Body of `GET /instances/{id}/connect`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConnectionEnvelope {
    /// The connection.
    pub connection: Connection,
}

/// A visit asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WantedVisit {
    /// Database that the user is granted; it is granted none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// Body of `POST /instances/{id}/visits`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisitRequest {
    /// The visit.
    pub visit: WantedVisit,
}

/// A user made for the occasion; dropped when the answer's connection ends.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Visit {
    /// Its name in the engine.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// First line of the answer to `POST /instances/{id}/visits`; the empty lines after it say that
/// the visit goes on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VisitEnvelope {
    /// The visit.
    pub visit: Visit,
}

//! Access as the engine's superuser.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the superuser may log in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootStatus {
    /// Enabled, and not disabled since.
    #[serde(rename = "rootEnabled")]
    pub root_enabled: bool,
}

/// Body of `POST /instances/{id}/root`, which may be left out.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EnableRootRequest {
    /// Password to set; one is made if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl fmt::Debug for EnableRootRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnableRootRequest").finish_non_exhaustive()
    }
}

/// The superuser with its password, shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RootUser {
    /// Its name in the engine.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for RootUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Answer of `POST /instances/{id}/root`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootEnvelope {
    /// The superuser.
    pub user: RootUser,
}

//! Discovery documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::v1::common::Link;

/// Answer of `GET /`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionsDocument {
    /// The versions of this API.
    pub versions: Vec<ApiVersion>,
}

/// Answer of `GET /v1.0`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionDocument {
    /// The version.
    pub version: ApiVersion,
}

/// A version of this API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiVersion {
    /// `v1.0`.
    pub id: String,
    /// `CURRENT`.
    pub status: String,
    /// When the version was defined.
    pub updated: String,
    /// Where it is.
    pub links: Vec<Link>,
}

//! The history of an instance, and the audit trail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::v1::common::Link;

/// One page of an instance's history, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The page.
    pub events: Vec<Event>,
    /// The next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

/// Something that happened to an instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Stable code.
    pub code: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// What happened, in words.
    pub message: String,
    /// Task that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// User that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Request that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When.
    pub created: String,
}

/// One page of the audit trail, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The page.
    pub audit: Vec<AuditEntry>,
    /// The next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

/// Who did what to which object, when, from where, with which result.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its id.
    pub id: String,
    /// Project of the token.
    pub project_id: String,
    /// User of the token.
    pub user_id: String,
    /// Roles of the user in the project.
    pub roles: Vec<String>,
    /// Trove's policy name.
    pub action: String,
    /// The object.
    pub target: String,
    /// HTTP status that was answered; 0 while it is under way, and when Coffer ended meanwhile.
    pub outcome: u16,
    /// The request.
    pub request_id: String,
    /// Where it came from.
    pub client_address: String,
    /// When.
    pub created: String,
}

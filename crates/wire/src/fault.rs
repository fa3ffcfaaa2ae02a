//! The one error body: Trove's fault object, with what Coffer adds inside it.
//!
//! `{"badRequest": {"code": 400, "message": "…", "request_id": "req-…", "reason": "…"}}`. Trove's
//! clients read `message` and `details` of the first value and ignore the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// HTTP status.
    pub code: u16,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// More of it, as Trove's rate limit gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// Seconds until a limited request may be repeated, as text.
    #[serde(
        default,
        rename = "retryAfter",
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<String>,
    /// The request, as in the header `X-OpenStack-Request-Id`.
    #[serde(default)]
    pub request_id: String,
    /// Stable code of the cause, for programs (`quota-exceeded`).
    #[serde(default)]
    pub reason: String,
    /// What to do next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A fault under its key (`badRequest`, `itemNotFound`, …); always exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct FaultBody(pub BTreeMap<String, Fault>);

impl FaultBody {
    /// The fault under `key`.
    pub fn new(key: &str, fault: Fault) -> Self {
        Self(BTreeMap::from([(key.to_owned(), fault)]))
    }

    /// Key and fault, if the body is one.
    pub fn first(&self) -> Option<(&str, &Fault)> {
        self.0
            .iter()
            .next()
            .map(|(key, fault)| (key.as_str(), fault))
    }
}

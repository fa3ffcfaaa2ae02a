//! Actions on an instance: exactly one key per body.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::rest::lenient::present;

/// Body of `POST /instances/{id}/action`. The value of most keys is `{}`; `null` is taken for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActionRequest {
    /// Restart the engine.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub restart: Option<Value>,
    /// Stop it until it is started; Coffer's own, Trove knows it below `/mgmt` only.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub stop: Option<Value>,
    /// Start it again; Coffer's own. A restart of what is stopped does the same.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub start: Option<Value>,
    /// Change flavor or volume.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub resize: Option<Value>,
    /// Make a replica the primary.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub promote_to_replica_source: Option<Value>,
    /// Remove a lost primary.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub eject_replica_source: Option<Value>,
    /// Look again at once at what a task waits for; for admins.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub reset_status: Option<Value>,
}

/// Body of `POST /mgmt/instances/{id}/action`: exactly one key, by its name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ManagementActionRequest(pub std::collections::BTreeMap<String, Value>);

impl ActionRequest {
    /// The keys that were given, with their values.
    pub fn given(&self) -> Vec<(&'static str, &Value)> {
        [
            ("restart", &self.restart),
            ("stop", &self.stop),
            ("start", &self.start),
            ("resize", &self.resize),
            ("promote_to_replica_source", &self.promote_to_replica_source),
            ("eject_replica_source", &self.eject_replica_source),
            ("reset_status", &self.reset_status),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
        .collect()
    }
}

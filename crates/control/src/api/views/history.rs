//! Events and the audit trail.

use coffer_core::event::{AuditEntry, Event};
use coffer_wire::rest::v1::event::{AuditEntry as ShownEntry, Event as ShownEvent};

/// An event.
pub(in crate::api) fn event(event: &Event) -> ShownEvent {
    let actor = event.actor.as_ref();
    ShownEvent {
        id: event.id.to_string(),
        code: event.code.clone(),
        severity: event.severity.as_str().to_owned(),
        message: event.message.clone(),
        task_id: event.task_id.map(|id| id.to_string()),
        user_id: actor.map(|actor| actor.user_id.to_string()),
        request_id: actor
            .map(|actor| actor.request_id.clone())
            .filter(|id| !id.is_empty()),
        created: event.at.trove(),
    }
}

/// A line of the audit trail.
pub(in crate::api) fn audit(entry: &AuditEntry) -> ShownEntry {
    ShownEntry {
        id: entry.id.to_string(),
        project_id: entry.actor.tenant_id.to_string(),
        user_id: entry.actor.user_id.to_string(),
        roles: entry.actor.roles.clone(),
        action: entry.action.clone(),
        target: entry.target.clone(),
        outcome: entry.outcome,
        request_id: entry.actor.request_id.clone(),
        client_address: entry.actor.client_address.clone(),
        created: entry.at.trove(),
    }
}

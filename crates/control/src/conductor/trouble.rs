//! What a guest says of an engine that does not serve, as an event of the instance's history.

use coffer_core::event::{Event, Severity};
use coffer_core::id::EventId;
use coffer_store::link::LiveLink;
use coffer_wire::guest::v1::{EngineHealth, Status};

use crate::services::Services;

/// Code of the events.
pub(crate) const CODE: &str = "engine.trouble";

/// What was told of one guest, so that nothing is told twice.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// The last trouble; empty once the engine serves; `None` before the history was looked at.
    told: Option<String>,
    /// Whether that was an engine that does not answer: why it does not may change with every
    /// probe.
    is_blocked: bool,
}

impl Troubles {
    /// The event of what the guest says, unless it was told already.
    pub(super) async fn newly(
        &mut self,
        services: &Services,
        link: &LiveLink,
        status: &Status,
    ) -> Option<Event> {
        if status.message.is_empty() {
            *self = Self {
                told: Some(String::new()),
                is_blocked: false,
            };
            return None;
        }
        let is_blocked = status.health == EngineHealth::Blocked;
        let told = match self.told.take() {
            Some(told) => told,
            None => last(services, link).await?,
        };
        let is_known = told == status.message || (is_blocked && self.is_blocked);
        self.told = Some(status.message.clone());
        self.is_blocked = is_blocked;
        (!is_known).then(|| event(services, link, &status.message))
    }
}

/// What the history says last; `None` while it cannot be read.
async fn last(services: &Services, link: &LiveLink) -> Option<String> {
    let found = services.store.find_last_event(link.instance_id, CODE).await;
    match found {
        Ok(found) => Some(found.map(|event| event.message).unwrap_or_default()),
        Err(error) => {
            tracing::error!(instance_id = %link.instance_id, %error, "read the last trouble");
            None
        }
    }
}

fn event(services: &Services, link: &LiveLink, message: &str) -> Event {
    Event {
        id: EventId::from_uuid(services.new_uuid()),
        tenant_id: link.tenant_id.clone(),
        instance_id: Some(link.instance_id),
        task_id: None,
        code: CODE.to_owned(),
        severity: Severity::Warning,
        message: message.to_owned(),
        actor: None,
        at: services.clock.now(),
    }
}

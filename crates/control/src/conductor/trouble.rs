//! What a guest says of an engine that does not serve, as an event of the instance's history.

use coffer_core::event::{Event, Severity};
use coffer_core::id::EventId;
use coffer_core::instance::Health;
use coffer_store::link::LiveLink;

use crate::services::Services;

/// Code of the events.
pub(crate) const CODE: &str = "engine.trouble";

/// LIMIT: longest message of a guest's that is kept, in characters.
const CHARS_MAX: usize = 1_000;

/// What was told of one guest, so that nothing is told twice.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// `None` before the history was looked at.
    told: Option<Told>,
}

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    /// Empty once the engine serves.
    message: String,
    health: Option<Health>,
}

impl Told {
    /// Whether this is no news. Why an engine does not answer may change with every probe; each
    /// crash is one of its own.
    fn is_known(&self, health: Health, message: &str) -> bool {
        self.message == message || (self.health == Some(health) && health != Health::Crashed)
    }
}

impl Troubles {
    /// The event of what the guest says, unless it was told already.
    pub(super) async fn newly(
        &mut self,
        services: &Services,
        link: &LiveLink,
        health: Health,
        message: &str,
    ) -> Option<Event> {
        if message.is_empty() {
            self.told = Some(Told::default());
            return None;
        }
        let message = cleaned(message);
        let told = match self.told.take() {
            Some(told) => told,
            None => last(services, link).await?,
        };
        let is_known = told.is_known(health, &message);
        let event = (!is_known).then(|| event(services, link, &message));
        let health = Some(health);
        self.told = Some(Told { message, health });
        event
    }
}

/// Guests are run beside what tenants command: no control characters, of which PostgreSQL keeps no
/// zero, and no more than is read.
fn cleaned(message: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    message.chars().take(CHARS_MAX).map(shown).collect()
}

/// What the history says last, unless the engine has served since; `None` while it cannot be read.
async fn last(services: &Services, link: &LiveLink) -> Option<Told> {
    let id = link.instance_id;
    let read = async {
        let instance = services.store.find_instance(id).await?;
        let event = services.store.find_last_event(id, CODE).await?;
        coffer_store::Result::Ok((instance, event))
    };
    match read.await {
        Ok((Some(instance), Some(event))) if instance.health != Health::Healthy => Some(Told {
            message: event.message,
            health: Some(instance.health),
        }),
        Ok(_) => Some(Told::default()),
        Err(error) => {
            tracing::error!(instance_id = %id, %error, "read the last trouble");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_made_fit_to_be_kept() {
        assert_eq!(cleaned("it said: a\0b\nc"), "it said: a b c");
        assert_eq!(
            cleaned(&"é".repeat(CHARS_MAX + 1)).chars().count(),
            CHARS_MAX
        );
    }

    #[test]
    fn a_crash_is_news_and_another_reason_for_silence_is_not() {
        let told = |health| Told {
            message: "one".to_owned(),
            health: Some(health),
        };
        assert!(told(Health::Blocked).is_known(Health::Blocked, "two"));
        assert!(told(Health::Starting).is_known(Health::Starting, "two"));
        assert!(!told(Health::Starting).is_known(Health::Blocked, "two"));
        assert!(!told(Health::Crashed).is_known(Health::Crashed, "two"));
        assert!(told(Health::Crashed).is_known(Health::Starting, "one"));
        assert!(!Told::default().is_known(Health::Crashed, "one"));
    }
}

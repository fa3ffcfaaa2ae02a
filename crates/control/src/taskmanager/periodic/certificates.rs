//! Asks for new certificates of instances in service long before those they have end.
//!
//! When they were made is told by the task that made them: whatever makes or starts a server gives
//! it new ones. Certificates of Coffer's own are renewed where they are shown (`tls::Renewed`).

use std::sync::Arc;

use coffer_core::actor::Actor;
use coffer_core::id::{TaskId, UserId};
use coffer_core::time::Timestamp;
use coffer_store::instance::Uncertified;
use coffer_store::{Store, StoreError};

use crate::limits;
use crate::services::Services;
use crate::supervise::Supervisor;
use crate::tls::RENEW_DAYS;
use crate::workflow::create_instance::CreateInstance;
use crate::workflow::recover_instance::RecoverInstance;
use crate::workflow::renew_certificates::{self, RenewCertificates, RenewCertificatesInput};
use crate::workflow::start_instance::StartInstance;
use crate::workflow::{NewTask, Workflow as _};

/// Workflows after which an instance has new certificates, all of them.
const MAKE_THEM: [&str; 4] = [
    CreateInstance::NAME,
    RecoverInstance::NAME,
    RenewCertificates::NAME,
    StartInstance::NAME,
];

/// Days that a renewal may be late before somebody has to look.
const LATE_DAYS: i64 = 30;
/// LIMIT: instances that are named as late.
const LATE_MAX: u32 = 1_000;

/// Instances whose certificates should have been renewed long ago, and end before long.
pub async fn list_overdue(store: &Store, now: Timestamp) -> Result<Vec<Uncertified>, StoreError> {
    let before = now.plus_seconds(-(RENEW_DAYS + LATE_DAYS) * 86_400);
    store.list_uncertified(&MAKE_THEM, before, LATE_MAX).await
}

/// The renewer of one process; any number of them do no harm.
#[derive(Debug)]
pub struct Renewer {
    services: Services,
}

impl Renewer {
    /// A renewer of these services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    /// Runs at once and then periodically, until told to stop.
    pub async fn run(self, supervisor: Supervisor) {
        let token = supervisor.token();
        let clock = Arc::clone(&self.services.clock);
        while !token.is_cancelled() {
            match self.once().await {
                Ok(0) => {}
                Ok(asked) => tracing::info!(asked, "certificates are due"),
                Err(error) => tracing::error!(%error, "look for certificates that are due"),
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = clock.sleep(limits::CERTIFICATE_PERIOD) => {}
            }
        }
    }

    /// One run; gives the number of instances for which new certificates were asked. Not more at a
    /// time than a limit says: those that were made together come due together.
    pub async fn once(&self) -> Result<usize, StoreError> {
        let now = self.services.clock.now();
        let before = now.plus_seconds(-RENEW_DAYS * 86_400);
        let store = &self.services.store;
        let due = store.list_uncertified(&MAKE_THEM, before, limits::CERTIFICATES_AT_ONCE);
        let mut asked = 0;
        for one in due.await? {
            asked += usize::from(self.ask(one).await?);
        }
        Ok(asked)
    }

    async fn ask(&self, one: Uncertified) -> Result<bool, StoreError> {
        let user: UserId = "system".parse().expect("'system' is a valid user id");
        let new = NewTask {
            id: TaskId::from_uuid(self.services.new_uuid()),
            tenant_id: one.tenant_id.clone(),
            instance_id: one.instance_id,
            actor: Actor::system(one.tenant_id, user),
            now: self.services.clock.now(),
        };
        let input = RenewCertificatesInput {
            instance_id: one.instance_id,
            set_id: one.set_id,
        };
        let task = renew_certificates::task(new, &input);
        let store = &self.services.store;
        store.insert_task_if_idle(one.instance_id, &task).await
    }
}

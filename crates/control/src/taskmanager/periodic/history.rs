//! Removes history that is older than the operator wants it kept: nothing else ever does, and an
//! instance that cannot be recovered adds a task with its steps each minute.

use std::sync::Arc;
use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_store::{Result, Store};

use crate::clock::Clock;
use crate::config::Retention;
use crate::limits;
use crate::supervise::Supervisor;

/// The cleaner of one process; any number of them do no harm.
#[derive(Debug)]
pub struct HistoryCleaner {
    store: Store,
    clock: Arc<dyn Clock>,
    keep: Retention,
}

/// What one run removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryStatus {
    /// Ended tasks.
    pub tasks: u64,
    /// Lines of the histories of tasks that go on.
    pub steps: u64,
    /// Events.
    pub events: u64,
    /// Rows of deleted instances.
    pub instances: u64,
    /// Lines of the audit trail.
    pub audit: u64,
}

/// A kind of row that is removed.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Tasks,
    Steps,
    Events,
    Instances,
    Audit,
}

impl HistoryCleaner {
    /// A cleaner of this store, which keeps what it is told to.
    pub fn new(store: Store, clock: Arc<dyn Clock>, keep: Retention) -> Self {
        Self { store, clock, keep }
    }

    /// Runs at once and then periodically, until told to stop.
    pub async fn run(self, supervisor: Supervisor) {
        let token = supervisor.token();
        while !token.is_cancelled() {
            match self.once().await {
                Ok(status) if status == HistoryStatus::default() => {}
                Ok(status) => tracing::info!(?status, "removed old history"),
                Err(error) => tracing::error!(%error, "remove old history"),
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = self.clock.sleep(limits::RETENTION_PERIOD) => {}
            }
        }
    }

    /// One run. Tasks and events go before the instances that they name.
    pub async fn once(&self) -> Result<HistoryStatus> {
        let keep = &self.keep;
        Ok(HistoryStatus {
            tasks: self.remove(Kind::Tasks, keep.tasks).await?,
            steps: self.remove(Kind::Steps, keep.tasks).await?,
            events: self.remove(Kind::Events, keep.events).await?,
            instances: self.remove(Kind::Instances, keep.instances).await?,
            audit: self.remove(Kind::Audit, keep.audit).await?,
        })
    }

    /// In bites, so that no other writer waits long for one, and not without end: what is left is
    /// for the next run.
    async fn remove(&self, kind: Kind, keep: Duration) -> Result<u64> {
        let seconds = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let before = self.clock.now().plus_seconds(-seconds);
        let mut removed = 0;
        for _ in 0..limits::RETENTION_BITES {
            let bite = self.bite(kind, before).await?;
            removed += bite;
            if bite < u64::from(limits::RETENTION_BITE) {
                break;
            }
        }
        Ok(removed)
    }

    async fn bite(&self, kind: Kind, before: Timestamp) -> Result<u64> {
        let (store, limit) = (&self.store, limits::RETENTION_BITE);
        match kind {
            Kind::Tasks => store.delete_old_tasks(before, limit).await,
            Kind::Steps => store.delete_old_steps(before, limit).await,
            Kind::Events => store.delete_old_events(before, limit).await,
            Kind::Instances => store.delete_old_instances(before, limit).await,
            Kind::Audit => store.delete_old_audit(before, limit).await,
        }
    }
}

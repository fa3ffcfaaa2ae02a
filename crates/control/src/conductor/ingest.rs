//! Writes what was heard of guests, many reports in one transaction.

use std::future::Future;
use std::time::Duration;

use coffer_store::status::Report;
use tokio::sync::mpsc;

use crate::limits;
use crate::services::Services;

/// Where polls put what they heard or missed.
pub(super) type Sender = mpsc::Sender<Report>;

/// The queue and the task that empties it; it ends when every sender is gone.
pub(super) fn channel(services: Services) -> (Sender, impl Future<Output = ()> + Send + 'static) {
    let (sender, mut queue) = mpsc::channel(limits::INGEST_QUEUE);
    let ingest = async move {
        let mut batch = Vec::new();
        let mut written: Option<Duration> = None;
        while queue.recv_many(&mut batch, limits::INGEST_BATCH).await > 0 {
            // The first is written at once; what comes right after it waits for its like, because
            // a transaction of ten costs little more than one of one.
            let age = written.map(|at| services.clock.monotonic().saturating_sub(at));
            let rest = age.map_or(Duration::ZERO, |age| {
                limits::INGEST_PACE.saturating_sub(age)
            });
            if !rest.is_zero() {
                services.clock.sleep(rest).await;
                while batch.len() < limits::INGEST_BATCH
                    && let Ok(more) = queue.try_recv()
                {
                    batch.push(more);
                }
            }
            // A loss is told once, so that no report may be dropped while anybody still listens.
            while let Err(error) = services.store.record_reports(&batch).await {
                tracing::error!(%error, reports = batch.len(), "record what guests report");
                if queue.is_closed() {
                    return;
                }
                services.clock.sleep(limits::INGEST_RETRY).await;
            }
            batch.clear();
            written = Some(services.clock.monotonic());
        }
    };
    (sender, ingest)
}

//! Writes what was heard of guests, many reports in one transaction.

use std::future::Future;

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
        while queue.recv_many(&mut batch, limits::INGEST_BATCH).await > 0 {
            // A loss is told once, so that no report may be dropped while anybody still listens.
            while let Err(error) = services.store.record_reports(&batch).await {
                tracing::error!(%error, reports = batch.len(), "record what guests report");
                if queue.is_closed() {
                    return;
                }
                services.clock.sleep(limits::INGEST_RETRY).await;
            }
            batch.clear();
        }
    };
    (sender, ingest)
}

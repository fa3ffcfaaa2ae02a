//! Writes what guests report, many reports in one transaction.

use std::future::Future;

use coffer_core::instance::Observation;
use tokio::sync::mpsc;

use crate::limits;
use crate::services::Services;

/// Where polls put what they heard.
pub(super) type Sender = mpsc::Sender<Observation>;

/// The queue and the task that empties it; it ends when every sender is gone.
pub(super) fn channel(services: Services) -> (Sender, impl Future<Output = ()> + Send + 'static) {
    let (sender, mut queue) = mpsc::channel(limits::INGEST_QUEUE);
    let ingest = async move {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, limits::INGEST_BATCH).await > 0 {
            if let Err(error) = services.store.record_observations(&batch).await {
                // The guest's next report says the same again.
                tracing::error!(%error, reports = batch.len(), "record what guests report");
            }
            batch.clear();
        }
    };
    (sender, ingest)
}

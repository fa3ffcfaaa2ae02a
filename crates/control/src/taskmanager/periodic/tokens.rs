//! Removes tokens that have ended: nobody asks for them any more, and a table of logins only grows.

use std::sync::Arc;

use coffer_store::{Result, Store};

use crate::clock::Clock;
use crate::limits;
use crate::supervise::Supervisor;

/// The cleaner of one process; any number of them do no harm.
#[derive(Debug)]
pub struct TokenCleaner {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl TokenCleaner {
    /// A cleaner of this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Runs at once and then periodically, until told to stop.
    pub async fn run(self, supervisor: Supervisor) {
        let token = supervisor.token();
        while !token.is_cancelled() {
            match self.once().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed tokens that had ended"),
                Err(error) => tracing::error!(%error, "remove tokens that have ended"),
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = self.clock.sleep(limits::TOKEN_CLEANUP_PERIOD) => {}
            }
        }
    }

    /// One run; gives the number of tokens removed.
    pub async fn once(&self) -> Result<u64> {
        self.store.delete_expired_tokens(self.clock.now()).await
    }
}

//! The one door to `tokio::spawn`: every long-lived task belongs to a set, gets a cancel token,
//! and is awaited at shutdown.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks that end together.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Supervisor {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that tells tasks of this set to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task that watches the token itself.
    pub fn start<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            let guard = EndGuard { name, token };
            task.await;
            guard.done();
        });
    }

    /// Starts a short task that is dropped when the set is told to stop.
    pub fn start_short<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Tells all tasks to stop and waits for them, at most `limit`. Returns whether all ended.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok()
    }
}

/// Ends the whole set when a task panics: leases heal what it held.
struct EndGuard {
    name: &'static str,
    token: CancellationToken,
}

impl EndGuard {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked, stopping the process");
            self.token.cancel();
        }
    }
}

//! The one door to `tokio::spawn`: every long-lived task belongs to a set, gets a cancel token,
//! and is awaited at shutdown.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task does. Boxed, so that a runtime's part of a task is compiled once, and not for each
/// of them in every crate that starts one.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A set of tasks that end together.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    token: CancellationToken,
    tracker: TaskTracker,
    panicked: Arc<OnceLock<&'static str>>,
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

    /// The first task that panicked and so ended the set.
    pub fn panicked(&self) -> Option<&'static str> {
        self.panicked.get().copied()
    }

    /// Starts a task that watches the token itself.
    pub fn start<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_work(name, Box::pin(task));
    }

    fn start_work(&self, name: &'static str, task: Work) {
        let guard = EndGuard {
            name,
            token: self.token.clone(),
            panicked: self.panicked.clone(),
        };
        self.tracker.spawn(async move {
            task.await;
            guard.done();
        });
    }

    /// Starts a short task that is dropped when the set is told to stop.
    pub fn start_short<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_short_work(Box::pin(task));
    }

    fn start_short_work(&self, task: Work) {
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
    panicked: Arc<OnceLock<&'static str>>,
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
            let _ = self.panicked.set(self.name);
            self.token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_whole_set_and_is_told() {
        let supervisor = Supervisor::new();
        let token = supervisor.token();
        supervisor.start("patient", async move { token.cancelled().await });
        assert_eq!(supervisor.panicked(), None);
        supervisor.start("rash", async { panic!("as the test wants") });
        supervisor.token().cancelled().await;
        assert!(supervisor.stop(Duration::from_secs(5)).await);
        assert_eq!(supervisor.panicked(), Some("rash"));
    }
}

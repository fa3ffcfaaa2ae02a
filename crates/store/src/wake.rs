//! Wake-ups: whoever commits work wakes whoever looks for it.
//!
//! Inside one process by a counter, between processes by PostgreSQL's NOTIFY. Nothing is stored:
//! a subscriber that missed one finds the work by looking, which it also does from time to time.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::Result;
use crate::sql::Listener;
use crate::store::Store;

/// How long a lost connection is left alone before it is made again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Tells when there may be work.
#[derive(Debug)]
pub struct Wakeups {
    store: Store,
    commits: watch::Receiver<u64>,
    remote: Remote,
}

#[derive(Debug)]
enum Remote {
    /// The connection is made by the first wait.
    Unconnected,
    /// All who commit are in this process.
    None,
    Listening(Box<Listener>),
}

impl Wakeups {
    /// Waits until something was committed that makes work; may also return without a reason.
    /// Cancelling it loses nothing.
    pub async fn wait(&mut self) {
        if matches!(self.remote, Remote::Unconnected) {
            self.connect().await;
            return;
        }
        let heard = match &mut self.remote {
            Remote::Listening(listener) => tokio::select! {
                changed = self.commits.changed() => {
                    changed.expect("the store, held here, owns the sender");
                    Ok(())
                }
                heard = listener.wait() => heard,
            },
            Remote::Unconnected | Remote::None => {
                self.commits
                    .changed()
                    .await
                    .expect("the store, held here, owns the sender");
                Ok(())
            }
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "lost the connection that hears of work; making it again");
            self.remote = Remote::Unconnected;
        }
    }

    /// Connects; the caller then looks for work once, since some may have come before.
    async fn connect(&mut self) {
        match Box::pin(self.store.db().listen()).await {
            Ok(Some(listener)) => self.remote = Remote::Listening(Box::new(listener)),
            Ok(None) => self.remote = Remote::None,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for work of other processes");
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
        }
    }
}

impl Store {
    /// A subscription to everything committed from now on. Its first wait returns at once.
    pub fn subscribe(&self) -> Wakeups {
        let commits = self.commits().subscribe();
        Wakeups {
            store: self.clone(),
            commits,
            remote: Remote::Unconnected,
        }
    }

    /// Wakes every subscriber in every process.
    pub async fn wake(&self) -> Result<()> {
        self.announce();
        self.db().notify().await
    }
}

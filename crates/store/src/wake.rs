//! Wake-ups: whoever commits work wakes whoever looks for it, and so does whoever ends it.
//!
//! Inside one process by a counter, between processes by PostgreSQL's NOTIFY, which one connection
//! of each process hears for all its subscribers. Nothing is stored: a subscriber that missed one
//! finds the work by looking, which it also does from time to time.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::Result;
use crate::store::Store;

/// How long a lost connection is left alone before it is made again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Tells when there may be work.
#[derive(Debug)]
pub struct Wakeups {
    /// Owns the sender.
    _store: Store,
    commits: watch::Receiver<u64>,
}

impl Wakeups {
    /// Waits until something was committed since the last wait, or since the subscription; may
    /// also return without a reason. Cancelling it loses nothing.
    pub async fn wait(&mut self) {
        let changed = self.commits.changed().await;
        changed.expect("the store, held here, owns the sender");
    }
}

impl Store {
    /// A subscription to everything committed from now on by this process, and by others while
    /// [`Store::hear`] runs.
    pub fn subscribe(&self) -> Wakeups {
        Wakeups {
            _store: self.clone(),
            commits: self.commits().subscribe(),
        }
    }

    /// Wakes this process's subscribers when other processes commit, for ever. Returns at once
    /// where there are no others. Each process runs it once.
    pub async fn hear(&self) {
        loop {
            match Box::pin(self.db().listen()).await {
                Ok(None) => return,
                Ok(Some(mut listener)) => {
                    // Something may have come before the connection was there.
                    self.announce();
                    while listener.wait().await.is_ok() {
                        self.announce();
                    }
                    tracing::warn!("lost the connection that hears of work; making it again");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot listen for work of other processes");
                    tokio::time::sleep(RECONNECT_DELAY).await;
                }
            }
        }
    }

    /// Wakes every subscriber in every process.
    pub async fn wake(&self) -> Result<()> {
        self.announce();
        self.db().notify().await
    }
}

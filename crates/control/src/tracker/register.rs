//! A tracker's place in the store: signs of life, links that name it, and the end of trackers
//! that give no sign any more.

use std::collections::HashMap;
use std::time::Duration;

use coffer_core::id::TrackerId;
use coffer_core::tracker::Tracker;
use coffer_store::{Result, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits;

/// Keeps one tracker known.
#[derive(Debug)]
pub(super) struct Register {
    store: Store,
    own: Tracker,
    lease: Duration,
    /// Counters of the others, with the time since when they stand.
    seen: HashMap<TrackerId, (u64, Duration)>,
}

impl Register {
    /// Makes the tracker known. One that knows itself alone on the store forgets those of before
    /// at once; else another is forgotten when it gave no sign for the lease time.
    pub(super) async fn enter(
        store: Store,
        own: Tracker,
        lease: Duration,
        is_alone: bool,
    ) -> Result<Self> {
        if is_alone {
            for other in store.list_trackers().await? {
                store.delete_tracker(other.tracker.id).await?;
            }
        }
        store.insert_tracker(&own).await?;
        store.beat_tracker(own.id).await?;
        Ok(Self {
            store,
            own,
            lease,
            seen: HashMap::new(),
        })
    }

    /// Gives signs of life until told to stop, and then takes the tracker's leave.
    pub(super) async fn run(mut self, clock: &dyn Clock, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                () = clock.sleep(limits::TRACKER_BEAT) => {}
            }
            if let Err(error) = self.beat(clock.monotonic()).await {
                tracing::warn!(%error, "give the tracker's sign of life");
            }
        }
        if let Err(error) = self.store.delete_tracker(self.own.id).await {
            tracing::warn!(%error, "take the tracker's leave");
        }
    }

    pub(super) async fn beat(&mut self, now: Duration) -> Result<()> {
        if !self.store.beat_tracker(self.own.id).await? {
            // Others took it for dead while it stood still; it is not.
            self.store.insert_tracker(&self.own).await?;
            self.store.beat_tracker(self.own.id).await?;
        }
        let mut seen = HashMap::new();
        for other in self.store.list_trackers().await? {
            let Tracker { id, beat, .. } = other.tracker;
            if id == self.own.id {
                continue;
            }
            let since = match self.seen.get(&id) {
                Some((before, since)) if *before == beat => *since,
                _ => now,
            };
            if now.saturating_sub(since) >= self.lease
                && self.store.delete_unmoved_tracker(id, beat).await?
            {
                tracing::info!(tracker = %id, "a tracker gives no sign of life and is forgotten");
                continue;
            }
            seen.insert(id, (beat, since));
        }
        self.seen = seen;
        Ok(())
    }
}

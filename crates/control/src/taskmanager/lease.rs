//! Takes tasks over from workers that died: a lease is a counter that its owner moves. It is lost
//! only after this worker has seen it unmoved for the lease time on its own monotonic clock, so no
//! wall clock counts and a paused worker loses nothing it could still use.

use std::collections::HashMap;
use std::time::Duration;

use coffer_core::id::TaskId;
use coffer_store::task::RunningTask;

/// What a worker has seen of other workers' leases.
#[derive(Debug, Default)]
pub(super) struct LeaseWatch {
    seen: HashMap<TaskId, Seen>,
}

#[derive(Debug)]
struct Seen {
    version: u64,
    lease: u64,
    since: Duration,
}

impl LeaseWatch {
    /// Notes what is running at `now`; answers what has not moved for `lease_time`.
    pub(super) fn observe(
        &mut self,
        running: &[RunningTask],
        now: Duration,
        lease_time: Duration,
    ) -> Vec<RunningTask> {
        self.seen
            .retain(|id, _| running.iter().any(|task| task.id == *id));
        running
            .iter()
            .filter(|task| self.is_lost(task, now, lease_time))
            .cloned()
            .collect()
    }

    fn is_lost(&mut self, task: &RunningTask, now: Duration, lease_time: Duration) -> bool {
        let fresh = Seen {
            version: task.version,
            lease: task.lease,
            since: now,
        };
        match self.seen.get_mut(&task.id) {
            Some(seen) if seen.version == task.version && seen.lease == task.lease => {
                now.saturating_sub(seen.since) >= lease_time
            }
            Some(seen) => {
                *seen = fresh;
                false
            }
            None => {
                self.seen.insert(task.id, fresh);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn running(lease: u64) -> Vec<RunningTask> {
        vec![RunningTask {
            id: TaskId::from_uuid(Uuid::nil()),
            owner: "other".to_owned(),
            version: 1,
            lease,
        }]
    }

    #[test]
    fn only_an_unmoved_lease_is_lost() {
        let mut watch = LeaseWatch::default();
        let second = Duration::from_secs;
        assert!(watch.observe(&running(1), second(0), second(20)).is_empty());
        assert!(
            watch
                .observe(&running(1), second(19), second(20))
                .is_empty()
        );
        assert!(
            watch
                .observe(&running(2), second(21), second(20))
                .is_empty(),
            "it moved"
        );
        assert!(
            watch
                .observe(&running(2), second(40), second(20))
                .is_empty()
        );
        assert_eq!(watch.observe(&running(2), second(41), second(20)).len(), 1);
    }
}

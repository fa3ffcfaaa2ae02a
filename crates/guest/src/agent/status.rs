//! The status as it is, and who waits for its next change.

use coffer_wire::guest::v1::{AgentImage, EngineHealth, Role, Status};
use tokio::sync::watch;

/// The status; every telling change raises its sequence and wakes the long polls.
#[derive(Debug)]
pub(crate) struct StatusBoard(watch::Sender<Status>);

impl StatusBoard {
    /// The status of an agent that has just started.
    pub(crate) fn new(agent_start: u64, inventory_counter: u64) -> Self {
        let status = Status {
            agent_start,
            sequence: 1,
            generation: 0,
            spec_version: 0,
            applied_version: 0,
            role: Role::Primary,
            health: EngineHealth::Waiting,
            message: String::new(),
            engine_starts: 0,
            engine_process: None,
            position: None,
            volume_used_bytes: 0,
            volume_total_bytes: 0,
            inventory_counter,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_version: None,
            agent: AgentImage::default(),
        };
        Self(watch::Sender::new(status))
    }

    /// Changes the status. What changes with every probe (the position, a little of the volume) is
    /// kept without being told: it goes with the next telling change or poll.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            let is_told = is_telling(&before, status);
            if is_told {
                status.sequence += 1;
            }
            is_told
        });
    }

    /// The status now.
    pub(crate) fn now(&self) -> Status {
        self.0.borrow().clone()
    }

    /// For waiting on changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }
}

fn is_telling(before: &Status, after: &Status) -> bool {
    let volume_step = (after.volume_total_bytes / 100).max(1);
    let mut same = after.clone();
    same.position.clone_from(&before.position);
    if before.volume_used_bytes / volume_step == after.volume_used_bytes / volume_step {
        same.volume_used_bytes = before.volume_used_bytes;
    }
    same != *before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_worth_telling() {
        let board = StatusBoard::new(1, 0);
        let mut watch = board.watch();
        watch.mark_unchanged();
        board.change(|status| status.position = Some("0/1".to_owned()));
        assert!(!watch.has_changed().unwrap());
        assert_eq!(board.now().position.as_deref(), Some("0/1"));
        board.change(|status| status.volume_total_bytes = 1000);
        board.change(|status| status.volume_used_bytes = 9);
        assert_eq!(board.now().sequence, 2);
        board.change(|status| status.volume_used_bytes = 10);
        board.change(|status| status.health = EngineHealth::Healthy);
        board.change(|status| status.health = EngineHealth::Healthy);
        assert_eq!(board.now().sequence, 4);
        assert!(watch.has_changed().unwrap());
    }
}

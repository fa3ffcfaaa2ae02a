//! The agent's tasks: one set, ended as a whole. Nothing else in the crate spawns.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::{AbortHandle, JoinSet};

/// Every task of one agent.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts a task; it ends with the set at the latest.
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(task)
    }

    /// Ends every task.
    pub(crate) fn abort_all(&self) {
        self.set().abort_all();
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the set when dropped.
#[derive(Debug)]
pub(crate) struct EndWithMe(pub(crate) std::sync::Arc<Tasks>);

impl Drop for EndWithMe {
    fn drop(&mut self) {
        self.0.abort_all();
    }
}

//! What workflows, task manager and conductor work with, in one place.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::task::Task;
use coffer_infra::Provider;
use coffer_store::Store;
use coffer_store::task::StepCommit;
use uuid::Uuid;

use crate::clock::{Clock, Entropy, new_uuid};
use crate::guest::{AgentBinary, Guests};
use crate::limits;
use crate::secrets::SecretBox;

/// The doors to everything outside a workflow.
#[derive(Debug, Clone)]
pub struct Services {
    /// State.
    pub store: Store,
    /// Infrastructure.
    pub provider: Arc<dyn Provider>,
    /// Guests.
    pub guests: Arc<dyn Guests>,
    /// The agent that guests should run; `None` leaves theirs alone.
    pub agent: Option<Arc<AgentBinary>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Encryption at rest.
    pub secrets: SecretBox,
    /// Faults that simulation injects; `None` in production.
    pub chaos: Option<Arc<dyn Chaos>>,
    /// What the operator has set.
    pub tuning: Tuning,
}

/// What the operator may set of how tasks are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Time after which an unmoved lease may be taken over.
    pub lease: Duration,
    /// Tasks that one worker runs at once.
    pub tasks_at_once: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            lease: limits::LEASE,
            tasks_at_once: limits::TASKS_AT_ONCE,
        }
    }
}

impl Services {
    /// A new id.
    pub fn new_uuid(&self) -> Uuid {
        new_uuid(&*self.clock, &*self.entropy)
    }

    /// Whether a simulation has broken this promise; never in production.
    pub(crate) fn breaks(&self, guard: Guard) -> bool {
        self.chaos.as_ref().is_some_and(|chaos| chaos.breaks(guard))
    }
}

/// A promise of the runtime that a simulation breaks on purpose, one at a time, to show that its
/// checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// An outside call is made only under a lease that outlives it.
    LeaseBeforeCall,
    /// A lease is lost only after it was seen unmoved for its whole time.
    LeaseUnmoved,
    /// Steps run only under the task's locks.
    Locks,
    /// A delete ends other tasks before their next step.
    DeleteFirst,
    /// What was done is undone when a step is given up.
    Undo,
    /// A step is given up at its deadline.
    Deadline,
    /// Undoing and deleting are never given up.
    NeverGivenUp,
}

/// Whether a simulated process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Go,
    /// The process dies here.
    Crash,
    /// The store does not take the commit that comes now.
    StoreFails,
}

/// Points at which simulation can stop or pause a worker.
#[async_trait]
pub trait Chaos: Send + Sync + Debug {
    /// Before a step's commit; `step` as JSON text.
    async fn before_commit(&self, task: &Task) -> Verdict;

    /// After a step's commit.
    async fn after_commit(&self, task: &Task) -> Verdict;

    /// Before a call to a provider or guest, after the lease was checked.
    async fn before_call(&self, task: &Task) -> Verdict;

    /// Whether this promise is broken.
    fn breaks(&self, _guard: Guard) -> bool {
        false
    }

    /// Spoils a commit that is about to be made.
    fn spoil(&self, _commit: &mut StepCommit) {}
}

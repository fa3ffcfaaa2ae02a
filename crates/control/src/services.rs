//! What workflows, task manager and conductor work with, in one place.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::task::Task;
use coffer_infra::Provider;
use coffer_store::Store;
use uuid::Uuid;

use crate::clock::{Clock, Entropy, new_uuid};
use crate::guest::Guests;
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
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Encryption at rest.
    pub secrets: SecretBox,
    /// Faults that simulation injects; `None` in production.
    pub chaos: Option<Arc<dyn Chaos>>,
}

impl Services {
    /// A new id.
    pub fn new_uuid(&self) -> Uuid {
        new_uuid(&*self.clock, &*self.entropy)
    }
}

/// Whether a simulated process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Go,
    /// The process dies here.
    Crash,
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
}

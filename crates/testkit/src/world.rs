//! A whole control plane in one process: real store, real workflows and runtime, fake provider,
//! guests in memory. Tasks are run to their end in virtual time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_control::clock::{Clock, Entropy, new_uuid};
use coffer_control::secrets::SecretBox;
use coffer_control::services::Services;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_control::taskmanager::{RunError, Worker};
use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, NetworkId, TaskId, TenantId};
use coffer_core::task::Task;
use coffer_infra::fake::FakeProvider;
use coffer_store::{Durability, Store, StoreOptions, StoreUrl};
use uuid::Uuid;

use crate::chaos::{Faults, PauseReason};
use crate::guests::SimGuests;
use crate::time::{Seeded, SimClock};

/// Longest a task may take to end once faults have stopped; unit: virtual time.
const SETTLE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// A simulated control plane.
#[derive(Debug)]
pub struct World {
    /// Its doors to the outside.
    pub services: Services,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// Its faults.
    pub faults: Arc<Faults>,
    /// Its provider.
    pub provider: Arc<FakeProvider>,
    /// Its guests.
    pub guests: Arc<SimGuests>,
    /// The one project in it.
    pub tenant_id: TenantId,
    /// The project's network.
    pub network_id: NetworkId,
    generation: AtomicU64,
    asked: Mutex<Vec<InstanceId>>,
}

impl World {
    /// A new world with one project, network, flavor and datastore.
    pub async fn new(seed: u64, faults: Faults) -> Self {
        let clock = Arc::new(SimClock::default());
        let entropy = Arc::new(Seeded::new(seed));
        let faults = Arc::new(faults);
        let provider = Arc::new(FakeProvider::new(faults.clone()));
        let guests = Arc::new(SimGuests::new(
            provider.clone(),
            clock.clone(),
            faults.clone(),
        ));
        let options = StoreOptions {
            durability: Durability::Off,
            readers: 1,
            connections: 1,
        };
        let store = Store::open(&StoreUrl::SqliteMemory, options)
            .await
            .expect("a database in memory opens");
        let network_id = NetworkId::from_uuid(new_uuid(&*clock, &*entropy));
        let services = Services {
            store,
            provider: provider.clone(),
            guests: guests.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            secrets: SecretBox::new(key(&*entropy), entropy),
            chaos: Some(faults.clone()),
        };
        let tenant_id = "a".repeat(32).parse().expect("32 letters are a project id");
        let world = Self {
            services,
            clock,
            faults,
            provider,
            guests,
            tenant_id,
            network_id,
            generation: AtomicU64::new(0),
            asked: Mutex::default(),
        };
        crate::harness::furnish(&world).await;
        world
    }

    /// A new id.
    pub fn uuid(&self) -> Uuid {
        self.services.new_uuid()
    }

    /// Who asks.
    pub fn actor(&self) -> Actor {
        Actor {
            tenant_id: self.tenant_id.clone(),
            user_id: "user".parse().expect("a user id"),
            roles: vec!["member".to_owned()],
            request_id: "req".to_owned(),
            client_address: "127.0.0.1".to_owned(),
        }
    }

    /// A new id for a task.
    pub fn task_id(&self) -> TaskId {
        TaskId::from_uuid(self.uuid())
    }

    /// A worker as a new process would be: it has seen nothing yet.
    fn worker(&self) -> Worker {
        let number = self.generation.fetch_add(1, Ordering::Relaxed);
        Worker::new(self.services.clone(), format!("worker-{number}"))
    }

    /// Runs tasks, under whatever faults strike, until none is left.
    pub async fn settle(&self) -> Result<(), String> {
        let mut worker = self.worker();
        let end = self.clock.monotonic() + SETTLE_MAX;
        loop {
            let tasks = worker.claim(4).await.map_err(|e| e.to_string())?;
            if tasks.is_empty() && !self.pass_time(end).await? {
                return Ok(());
            }
            for task in tasks {
                if self.run(&worker, task).await? {
                    worker = self.worker();
                }
            }
        }
    }

    /// Moves the clock to when something is due. Answers whether anything is left to do.
    async fn pass_time(&self, end: Duration) -> Result<bool, String> {
        if self.unended().await?.is_empty() {
            return Ok(false);
        }
        if self.clock.monotonic() > end {
            let left = self.unended().await?;
            return Err(format!("stuck: {left:#?}"));
        }
        let now = self.services.clock.now();
        let due = self
            .services
            .store
            .next_due()
            .await
            .map_err(|e| e.to_string())?;
        let running = self
            .services
            .store
            .list_running()
            .await
            .map_err(|e| e.to_string())?;
        // A dead worker's lease has to be seen twice; with none to be seen, nothing is missed.
        let longest = if running.is_empty() { 60_000 } else { 5_000 };
        let ms = due
            .map_or(longest, |due| due.millis_since(now))
            .clamp(1, longest);
        self.clock
            .advance(Duration::from_millis(u64::try_from(ms).unwrap_or(1)));
        Ok(true)
    }

    /// Tasks that have not ended.
    pub async fn unended(&self) -> Result<Vec<Task>, String> {
        let mut left = Vec::new();
        let store = &self.services.store;
        for id in self.instances() {
            let tasks = store.list_tasks(id).await.map_err(|e| e.to_string())?;
            left.extend(tasks.into_iter().filter(|t| !t.state.is_ended()));
        }
        Ok(left)
    }

    /// Notes that this instance was asked for.
    pub(crate) fn note_asked(&self, id: InstanceId) {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
    }

    /// Every instance that was ever asked for, deleted ones too.
    pub fn instances(&self) -> Vec<InstanceId> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs one task. Answers whether the worker's process died.
    async fn run(&self, worker: &Worker, task: Task) -> Result<bool, String> {
        let mut running = std::pin::pin!(worker.run_task(task));
        let ended = loop {
            tokio::select! {
                biased;
                () = self.faults.paused.notified() => {
                    Box::pin(self.while_paused()).await?;
                    self.faults.go_on();
                }
                ended = &mut running => break ended,
            }
        };
        match ended {
            Ok(()) | Err(RunError::LeaseLost) => Ok(false),
            Err(RunError::Crashed) => Ok(true),
            Err(error @ RunError::Store(_)) => Err(error.to_string()),
        }
    }

    /// What happens in the world while a worker stands still.
    async fn while_paused(&self) -> Result<(), String> {
        match self.faults.pause_reason() {
            None => Ok(()),
            Some(PauseReason::Paused) => self.other_worker_finishes().await,
            Some(PauseReason::Delete(id)) => self.ask_delete(id).await,
            Some(PauseReason::ServerDies(id)) => {
                let graph = self.services.store.get_instance_graph(id).await;
                for server in graph.map(|g| g.servers).unwrap_or_default() {
                    self.provider.kill_server(server.id);
                }
                Ok(())
            }
        }
    }

    /// Another worker sees the lease unmoved, takes over and runs to the end.
    async fn other_worker_finishes(&self) -> Result<(), String> {
        let other = self.worker();
        for _ in 0..60 {
            self.clock.advance(Duration::from_secs(7));
            for task in other.claim(4).await.map_err(|e| e.to_string())? {
                Box::pin(self.run(&other, task)).await?;
            }
        }
        Ok(())
    }

    /// Two runs of the reconciler: what is left over is suspected, then removed.
    pub async fn reconcile(&self) -> Result<usize, String> {
        let mut reconciler = Reconciler::new(self.services.clone());
        let mut removed = 0;
        for _ in 0..2 {
            removed += reconciler.once().await.map_err(|e| e.to_string())?.removed;
        }
        Ok(removed)
    }
}

fn key(entropy: &dyn Entropy) -> [u8; 32] {
    let mut key = [0; 32];
    entropy.fill(&mut key);
    key
}

//! A whole control plane in one process: real store, real workflows and runtime, fake provider,
//! guests in memory. Tasks are run to their end in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use coffer_control::clock::{Clock, Entropy, SystemClock, new_uuid};
use coffer_control::guest::AgentBinary;
use coffer_control::secrets::SecretBox;
use coffer_control::services::{Services, Tuning};
use coffer_control::taskmanager::periodic::certificates::Renewer;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_control::taskmanager::{RunError, Worker};
use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, NetworkId, SecretId, TaskId, TenantId};
use coffer_core::instance::Lifecycle;
use coffer_core::task::{Signal, Task, TaskState};
use coffer_infra::fake::FakeProvider;
use coffer_store::{Rewrite, Store};
use uuid::Uuid;

use crate::chaos::{Faults, PauseReason};
use crate::guests::SimGuests;
use crate::mutants::Mutant;
use crate::oracle::{self, LeaseLog};
use crate::time::{Seeded, SimClock};

/// Longest a task may take to end once faults have stopped; unit: virtual time.
const SETTLE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// Time after which certificates are due.
const MONTHS: Duration = Duration::from_secs(300 * 86_400);

/// Size of the agent that a world carries.
const AGENT_BYTES: usize = 600 * 1024;

/// LIMIT: looks for work until a world counts as running in circles.
const ROUNDS_MAX: u32 = 200_000;
/// Waits shorter than this are not looked at every time; unit: milliseconds.
const LOOKED_AT_MS: i64 = 250;
/// Of shorter waits, one in so many is looked at.
const LOOKED_AT_EVERY: u64 = 64;

/// What tenants asked of a world.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Every instance, in order.
    pub(crate) instances: Vec<InstanceId>,
    /// Those whose deletion began.
    pub(crate) deleted: BTreeSet<InstanceId>,
    /// How often each command was asked for.
    pub(crate) commands: BTreeMap<(InstanceId, &'static str), usize>,
    /// Sealed commands.
    pub(crate) secrets: Vec<SecretId>,
}

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
    /// Volume type of the instances that are asked for.
    pub volume_type: Option<String>,
    /// How the store's statements are weakened.
    pub rewrites: Vec<Rewrite>,
    generation: AtomicU64,
    looks: AtomicU64,
    leases: LeaseLog,
    asked: Mutex<Asked>,
}

impl World {
    /// A new world with one project, network, flavor and datastore.
    pub async fn new(seed: u64, faults: Faults) -> Self {
        let world = Self::empty(seed, faults);
        crate::harness::furnish(&world).await;
        world
    }

    /// The same on a store of its own making, such as a file that can be copied.
    pub async fn on(seed: u64, store: Store) -> Self {
        let mut world = Self::empty(seed, Faults::exact(Vec::new()));
        world.go_on_with(store);
        crate::harness::furnish(&world).await;
        world
    }

    /// From now on the world works on another store.
    pub fn go_on_with(&mut self, store: Store) {
        self.faults.watch(&store);
        self.services.store = store;
    }

    /// A world to measure in: on this store, in the machine's own time, without faults, its
    /// engines up at once.
    pub async fn measured(store: Store) -> Self {
        let mut world = Self::empty(0, Faults::exact(Vec::new()));
        world.services.store = store;
        world.services.clock = Arc::new(SystemClock::new());
        world.services.chaos = None;
        world.guests.start_within(0);
        crate::harness::furnish(&world).await;
        world
    }

    fn empty(seed: u64, faults: Faults) -> Self {
        let clock = Arc::new(SimClock::default());
        let entropy = Arc::new(Seeded::new(seed));
        let faults = Arc::new(faults);
        let provider = Arc::new(FakeProvider::new(faults.clone()));
        let guests = Arc::new(SimGuests::new(
            provider.clone(),
            clock.clone(),
            faults.clone(),
            faults.mutant().is_some_and(Mutant::renames_commands),
        ));
        let rewrites = faults.mutant().map(Mutant::rewrites).unwrap_or_default();
        let store = Store::weakened(rewrites.clone()).expect("a database in memory opens");
        faults.watch(&store);
        let network_id = NetworkId::from_uuid(new_uuid(&*clock, &*entropy));
        let services = Services {
            store,
            provider: provider.clone(),
            guests: guests.clone(),
            agent: Some(carried_agent()),
            clock: clock.clone(),
            entropy: entropy.clone(),
            secrets: SecretBox::new(key(&*entropy), entropy),
            chaos: Some(faults.clone()),
            tuning: Tuning::default(),
        };
        let tenant_id = "a".repeat(32).parse().expect("32 letters are a project id");
        Self {
            services,
            clock,
            faults,
            provider,
            guests,
            tenant_id,
            network_id,
            volume_type: None,
            rewrites,
            generation: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            leases: LeaseLog::default(),
            asked: Mutex::default(),
        }
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
    pub fn worker(&self) -> Worker {
        let number = self.generation.fetch_add(1, Ordering::Relaxed);
        Worker::new(self.services.clone(), format!("worker-{number}"))
    }

    /// Claims what a worker may have, and checks that it may.
    async fn claim(&self, worker: &Worker) -> Result<Vec<Task>, String> {
        let running = self.services.store.list_running().await;
        let running = running.map_err(|e| e.to_string())?;
        let monotonic = self.clock.monotonic();
        self.leases.observe(&running, monotonic);
        let tasks = worker.claim(4).await.map_err(|e| e.to_string())?;
        self.leases
            .check(&tasks, monotonic, self.services.clock.now())?;
        Ok(tasks)
    }

    /// Runs tasks, under whatever faults strike, until none is left.
    pub async fn settle(&self) -> Result<(), String> {
        let mut worker = self.worker();
        let end = self.clock.monotonic() + SETTLE_MAX;
        for _ in 0..ROUNDS_MAX {
            let tasks = self.claim(&worker).await?;
            if tasks.is_empty() && !self.pass_time(end).await? {
                return Ok(());
            }
            for task in tasks {
                if self.run(&worker, task).await? {
                    worker = self.worker();
                }
            }
            self.check_promises().await?;
        }
        Err("it runs in circles".to_owned())
    }

    /// What must hold at every moment.
    async fn check_promises(&self) -> Result<(), String> {
        if let Some(violation) = self.faults.violation() {
            return Err(violation);
        }
        let deleted = self.asked().deleted.clone();
        for id in deleted {
            let instance = self.services.store.find_instance(id).await;
            let lifecycle = instance.map_err(|e| e.to_string())?.map(|i| i.lifecycle);
            let is_on_its_way = lifecycle
                .is_none_or(|state| matches!(state, Lifecycle::Deleting | Lifecycle::Deleted));
            if !is_on_its_way {
                return Err(format!("instance {id} is deleted and {lifecycle:?}"));
            }
        }
        Ok(())
    }

    /// Moves the clock to when something is due. Answers whether anything is left to do.
    async fn pass_time(&self, end: Duration) -> Result<bool, String> {
        let store = &self.services.store;
        let due = store.next_due().await.map_err(|e| e.to_string())?;
        let running = store.list_running().await.map_err(|e| e.to_string())?;
        if due.is_none() && running.is_empty() {
            return Ok(false);
        }
        if self.clock.monotonic() > end {
            let left = self.unended().await?;
            return Err(format!("stuck: {left:#?}"));
        }
        let now = self.services.clock.now();
        // A dead worker's lease has to be seen twice; with none to be seen, nothing is missed.
        let longest = if running.is_empty() { 60_000 } else { 5_000 };
        let ms = due
            .map_or(longest, |due| due.millis_since(now))
            .clamp(1, longest);
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        if ms >= LOOKED_AT_MS || looks.is_multiple_of(LOOKED_AT_EVERY) {
            for task in self.unended().await? {
                oracle::check_wait(store, &task, now).await?;
            }
        }
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

    /// What was asked for.
    pub(crate) fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every instance that was ever asked for, deleted ones too.
    pub fn instances(&self) -> Vec<InstanceId> {
        self.asked().instances.clone()
    }

    /// Runs one task. Answers whether the worker's process died.
    async fn run(&self, worker: &Worker, task: Task) -> Result<bool, String> {
        let told = self.told_to_stop(&task).await?;
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
            Ok(()) => match told {
                Some(id) => self.has_stopped(id).await.map(|()| false),
                None => Ok(false),
            },
            Err(RunError::LeaseLost) => Ok(false),
            Err(RunError::Crashed) => Ok(true),
            Err(RunError::Store(why)) if why == "simulated" => Ok(false),
            Err(error @ RunError::Store(_)) => Err(error.to_string()),
        }
    }

    /// The task's id, if it was told to make way for a delete before it runs now.
    async fn told_to_stop(&self, task: &Task) -> Result<Option<TaskId>, String> {
        let signals = self.services.store.list_signals(task.id).await;
        let signals = signals.map_err(|e| e.to_string())?;
        let is_told = signals.contains(&Signal::Delete) && task.workflow != "delete_instance";
        Ok(is_told.then_some(task.id))
    }

    async fn has_stopped(&self, id: TaskId) -> Result<(), String> {
        let task = self.services.store.find_task(id).await;
        match task.map_err(|e| e.to_string())? {
            Some(task) if task.state == TaskState::Cancelled => Ok(()),
            other => Err(format!("a task that was told to stop went on: {other:#?}")),
        }
    }

    /// What happens in the world while a worker stands still.
    async fn while_paused(&self) -> Result<(), String> {
        match self.faults.pause_reason() {
            None => Ok(()),
            Some(PauseReason::Paused(id)) => {
                self.other_worker_finishes().await?;
                match id {
                    Some(id) => self.tenant_goes_on(id).await,
                    None => Ok(()),
                }
            }
            Some(PauseReason::Delete(id)) => self.ask_delete(id).await,
            Some(PauseReason::Cancel(id)) => self.ask_cancel(id).await,
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
            for task in self.claim(&other).await? {
                Box::pin(self.run(&other, task)).await?;
            }
        }
        Ok(())
    }

    /// Once another worker has finished, the tenant wants the opposite, and gets it: what the
    /// paused one does then comes too late.
    async fn tenant_goes_on(&self, id: InstanceId) -> Result<(), String> {
        let found = self.services.store.find_instance(id).await;
        let lifecycle = found.map_err(|e| e.to_string())?.map(|i| i.lifecycle);
        let wants_stop = self.uuid().as_u128() & 1 == 1;
        let _refused = match (lifecycle, wants_stop) {
            (Some(Lifecycle::Stopped), _) => self.ask_start(id).await,
            (Some(Lifecycle::Active), true) => self.ask_stop(id).await,
            (Some(Lifecycle::Active), false) => self.ask_access(id).await,
            _ => Ok(()),
        };
        self.other_worker_finishes().await
    }

    /// So much time passes that certificates are due, and the renewer looks; answers how many
    /// instances it asked new ones for.
    pub async fn pass_months(&self) -> Result<usize, String> {
        self.settle().await?;
        self.clock.advance(MONTHS);
        let renewer = Renewer::new(self.services.clone());
        renewer.once().await.map_err(|e| e.to_string())
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

/// More than goes over a link in one call.
fn carried_agent() -> Arc<AgentBinary> {
    static CARRIED: OnceLock<Arc<AgentBinary>> = OnceLock::new();
    let make = || {
        let bytes = vec![7; AGENT_BYTES];
        let made = AgentBinary::in_memory(bytes).expect("what is in memory can be read");
        Arc::new(made)
    };
    Arc::clone(CARRIED.get_or_init(make))
}

fn key(entropy: &dyn Entropy) -> [u8; 32] {
    let mut key = [0; 32];
    entropy.fill(&mut key);
    key
}

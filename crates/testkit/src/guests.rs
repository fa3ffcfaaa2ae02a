//! Guests in memory: they run where the fake provider runs a server, keep what real guests keep
//! on their volume, and refuse what real guests refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coffer_control::clock::Clock;
use coffer_control::guest::{AgentBinary, GuestAddress, GuestError, Guests, Result};
use coffer_core::id::VolumeId;
use coffer_infra::fake::{FakeProvider, Fault, FaultSource};
use coffer_wire::guest::v1::{
    AGENT_INCOMPLETE, AgentImage, AgentUpload, Command, CommandState, Database, EngineHealth,
    Enrolled, Enrolment, InventoryPage, OTHER_CONTENT, Operation, RefusedAgent, Role, Spec,
    SpecAccepted, Status, User, WRONG_OFFSET,
};

use crate::time::SimClock;

/// Longest time for which a step asks for news.
const STEP_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a held question looks for news; virtual time.
const HOLD_PACE: Duration = Duration::from_millis(50);
/// How long another agent is on trial; virtual time.
const TRIAL: Duration = Duration::from_secs(3);
/// How long an engine takes to start; unit: milliseconds of virtual time.
const START_MS: u64 = 400;

/// What a guest keeps on its volume.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    /// What it was told.
    pub spec: Option<Spec>,
    applied_at: Duration,
    starts: u64,
    engine_starts: u64,
    commands: BTreeMap<String, CommandState>,
    task_versions: BTreeMap<String, u64>,
    /// Commands applied, in order, by id and name.
    pub applied: Vec<(String, &'static str)>,
    databases: BTreeSet<String>,
    users: BTreeMap<String, BTreeSet<String>>,
    is_root_enabled: bool,
    counter: u64,
    sequence: u64,
    /// What it says of an engine that does not serve.
    trouble: String,
    /// Certificate of its link, PEM.
    pub link_cert: Option<String>,
    /// Binary of its agent: its own, what another may replace it by, and until when that is on
    /// trial.
    pub agent: Agent,
}

/// What a guest knows of its agent's binary.
#[derive(Debug, Default, Clone)]
pub struct Agent {
    /// Checksum of what runs; without it nobody offers another.
    pub sha256: Option<String>,
    /// Checksums of what ran, in order.
    pub ran: Vec<String>,
    upload: Option<AgentUpload>,
    trial_ends: Duration,
    /// Whether it goes back from every other.
    pub is_refusing: bool,
    refused: Option<RefusedAgent>,
}

/// The guests of one world.
#[derive(Debug)]
pub struct SimGuests {
    provider: Arc<FakeProvider>,
    clock: Arc<SimClock>,
    faults: Arc<dyn FaultSource>,
    /// Whether every try of a command counts as another command.
    renames_commands: bool,
    kept: Mutex<BTreeMap<VolumeId, Kept>>,
    is_frozen: AtomicBool,
    holds_polls: AtomicBool,
    start_ms: AtomicU64,
}

impl SimGuests {
    /// Guests on the servers of this fake.
    pub fn new(
        provider: Arc<FakeProvider>,
        clock: Arc<SimClock>,
        faults: Arc<dyn FaultSource>,
        renames_commands: bool,
    ) -> Self {
        Self {
            provider,
            clock,
            faults,
            renames_commands,
            kept: Mutex::default(),
            is_frozen: AtomicBool::new(false),
            holds_polls: AtomicBool::new(false),
            start_ms: AtomicU64::new(START_MS),
        }
    }

    /// Whether guests take calls and answer none, like processes that were stopped.
    pub fn freeze(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::Relaxed);
    }

    /// From now on a long poll is held until there is news or its time is over, as real guests
    /// do. Somebody has to move the clock then; the short waits of steps, during which nobody
    /// does, are answered at once all the same.
    pub fn hold_polls(&self) {
        self.holds_polls.store(true, Ordering::Relaxed);
    }

    /// From now on engines take this long from being told to run until they serve; none where
    /// nobody moves the clock.
    pub fn start_within(&self, ms: u64) {
        self.start_ms.store(ms, Ordering::Relaxed);
    }

    fn is_up(&self, kept: &Kept, now: Duration) -> bool {
        let start = Duration::from_millis(self.start_ms.load(Ordering::Relaxed));
        kept.spec.is_some() && now >= kept.applied_at + start
    }

    /// Changes what the guest on this volume knows of its agent.
    pub fn change_agent(&self, volume: VolumeId, change: impl FnOnce(&mut Agent)) {
        if let Some(kept) = self.lock().get_mut(&volume) {
            change(&mut kept.agent);
            kept.sequence += 1;
        }
    }

    /// The engine of the guest on this volume was killed and started again by its init.
    pub fn restart_engine(&self, volume: VolumeId) {
        if let Some(kept) = self.lock().get_mut(&volume) {
            kept.engine_starts += 1;
            kept.sequence += 1;
        }
    }

    /// The guest on this volume says this of its engine, which serves no more; nothing: it serves.
    pub fn trouble(&self, volume: VolumeId, message: &str) {
        if let Some(kept) = self.lock().get_mut(&volume) {
            kept.trouble = message.to_owned();
            kept.sequence += 1;
        }
    }

    async fn thawed(&self) {
        while self.is_frozen.load(Ordering::Relaxed) {
            self.clock.sleep(HOLD_PACE).await;
        }
    }

    fn sequence(&self, guest: &GuestAddress) -> Option<u64> {
        let volume = self.provider.server(guest.server_id)?.spec.volume_id;
        self.lock().get(&volume).map(|kept| kept.sequence)
    }

    /// Holds a question for what is newer than `after`, at most `wait`.
    async fn hold(&self, guest: &GuestAddress, after: u64, wait: Duration) {
        self.thawed().await;
        let end = self.clock.monotonic() + wait;
        while self.holds_polls.load(Ordering::Relaxed)
            && wait > STEP_WAIT_MAX
            && self.clock.monotonic() < end
            && self
                .sequence(guest)
                .is_some_and(|sequence| sequence <= after)
        {
            self.clock.sleep(HOLD_PACE).await;
        }
        self.thawed().await;
    }

    /// What the guest on this volume keeps.
    pub fn kept(&self, volume: VolumeId) -> Kept {
        self.lock().get(&volume).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `deed` on a guest that runs, under the fault that strikes.
    fn call<T>(
        &self,
        guest: &GuestAddress,
        call: &'static str,
        deed: impl FnOnce(&mut Kept, Duration) -> Result<T>,
    ) -> Result<T> {
        let lost = |why: &str| GuestError::Unreachable {
            why: why.to_owned(),
        };
        let fault = self.faults.strike(call);
        match fault {
            Fault::None | Fault::LostReply | Fault::Late => {}
            Fault::Conflict if call == "inventory" => return refused("engine-down"),
            Fault::Conflict if call == "start_command" => return refused("busy"),
            _ => return Err(lost("the link is down")),
        }
        let server = self.provider.server(guest.server_id);
        let Some(server) = server.filter(|s| s.is_running) else {
            return Err(lost("it does not run"));
        };
        let now = self.clock.monotonic();
        let mut all = self.lock();
        let kept = all.entry(server.spec.volume_id).or_default();
        if kept.starts != server.starts {
            // The sandbox began anew: the engine starts again from the spec it kept.
            kept.starts = server.starts;
            kept.engine_starts = 1;
            kept.applied_at = now;
            kept.sequence += 1;
            // What was received was in the memory of an agent that is gone.
            kept.agent.upload = None;
        }
        let answer = deed(kept, now)?;
        if matches!(fault, Fault::LostReply | Fault::Late) {
            Err(lost("the reply was lost"))
        } else {
            Ok(answer)
        }
    }
}

/// The certificate request of every guest; their keys are never used.
fn request() -> String {
    static REQUEST: OnceLock<String> = OnceLock::new();
    let make = || {
        let key = rcgen::KeyPair::generate().expect("key generation needs only randomness");
        rcgen::CertificateParams::default()
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .expect("a request of an own key can always be made")
    };
    REQUEST.get_or_init(make).clone()
}

fn refused<T>(reason: &str) -> Result<T> {
    Err(GuestError::Refused {
        reason: reason.to_owned(),
        message: reason.to_owned(),
    })
}

fn apply(kept: &mut Kept, operation: &Operation) {
    kept.counter += 1;
    match operation {
        Operation::CreateDatabases { databases } => {
            kept.databases
                .extend(databases.iter().map(|d| d.name.clone()));
        }
        Operation::DropDatabase { name } => {
            kept.databases.remove(name);
        }
        Operation::CreateUsers { users } => {
            for user in users {
                let granted = user.databases.iter().cloned().collect();
                kept.users.insert(user.name.clone(), granted);
            }
        }
        Operation::DropUser { name, .. } => {
            kept.users.remove(name);
        }
        Operation::Grant {
            name, databases, ..
        } => {
            kept.users
                .entry(name.clone())
                .or_default()
                .extend(databases.iter().cloned());
        }
        Operation::Revoke { name, database, .. } => {
            if let Some(granted) = kept.users.get_mut(name) {
                granted.remove(database);
            }
        }
        Operation::EnableRoot { .. } => kept.is_root_enabled = true,
        Operation::DisableRoot => kept.is_root_enabled = false,
        Operation::ChangeUsers { .. } | Operation::Restart => {}
    }
}

#[async_trait]
impl Guests for SimGuests {
    async fn enrolment(&self, guest: &GuestAddress) -> Result<(Enrolment, String)> {
        let (csr, fingerprint) = (request(), "ab".repeat(32));
        self.call(guest, "enrolment", |kept, _| {
            let asked = Enrolment {
                server_id: guest.server_id.to_string(),
                link_csr_pem: csr.clone(),
                engine_csr_pem: csr,
                agent_version: "sim".to_owned(),
                is_enrolled: kept.spec.is_some(),
            };
            Ok((asked, fingerprint))
        })
    }

    async fn enrol(&self, guest: &GuestAddress, signed: &Enrolled) -> Result<()> {
        self.call(guest, "enrol", |kept, _| {
            kept.link_cert = Some(signed.link_cert_pem.clone());
            Ok(())
        })
    }

    async fn put_spec(&self, guest: &GuestAddress, spec: &Spec) -> Result<SpecAccepted> {
        self.call(guest, "put_spec", |kept, now| {
            let held = kept
                .spec
                .as_ref()
                .map(|s| (s.generation, s.version))
                .unwrap_or_default();
            if (spec.generation, spec.version) < held {
                return refused("older-generation");
            }
            let is_other = kept.spec.as_ref().is_some_and(|s| s != spec);
            if (spec.generation, spec.version) == held && is_other {
                return refused(OTHER_CONTENT);
            }
            if kept.spec.is_none() {
                kept.applied_at = now;
            }
            kept.spec = Some(spec.clone());
            kept.sequence += 1;
            Ok(SpecAccepted {
                generation: spec.generation,
                version: spec.version,
            })
        })
    }

    async fn status(&self, guest: &GuestAddress, after: u64, wait: Duration) -> Result<Status> {
        self.hold(guest, after, wait).await;
        self.call(guest, "status", |kept, now| {
            let up = self.is_up(kept, now);
            let version = kept.spec.as_ref().map_or(0, |s| s.version);
            Ok(Status {
                agent_start: kept.starts,
                sequence: kept.sequence,
                generation: kept.spec.as_ref().map_or(0, |s| s.generation),
                spec_version: version,
                applied_version: if up { version } else { 0 },
                role: Role::Primary,
                health: match (up, kept.trouble.is_empty()) {
                    (_, false) => EngineHealth::Crashed,
                    (true, true) => EngineHealth::Healthy,
                    (false, true) => EngineHealth::Starting,
                },
                message: kept.trouble.clone(),
                engine_starts: kept.engine_starts,
                engine_process: up.then(|| (7, kept.starts * 1_000 + kept.engine_starts)),
                position: None,
                volume_used_bytes: 1,
                volume_total_bytes: 2,
                inventory_counter: kept.counter,
                agent_version: "sim".to_owned(),
                engine_version: None,
                agent: AgentImage {
                    sha256: kept.agent.sha256.clone(),
                    is_on_trial: now < kept.agent.trial_ends,
                    refused: kept.agent.refused.clone(),
                },
            })
        })
    }

    async fn start_command(&self, guest: &GuestAddress, command: &Command) -> Result<CommandState> {
        self.call(guest, "start_command", |kept, now| {
            let mut id = command.id.clone();
            if self.renames_commands {
                id.push_str(&format!("-{}", kept.applied.len()));
            }
            if let Some(state) = kept.commands.get(&id) {
                return Ok(state.clone());
            }
            let fencing = &command.fencing;
            let newest = kept
                .task_versions
                .entry(fencing.task_id.clone())
                .or_default();
            if fencing.task_version < *newest {
                return refused("older-task-version");
            }
            *newest = fencing.task_version;
            if !self.is_up(kept, now) {
                return Err(GuestError::Unreachable {
                    why: "the engine starts".to_owned(),
                });
            }
            apply(kept, &command.operation);
            kept.applied.push((id.clone(), command.operation.name()));
            kept.commands.insert(id, CommandState::Done);
            Ok(CommandState::Done)
        })
    }

    async fn poll_command(
        &self,
        guest: &GuestAddress,
        id: &str,
        _wait: Duration,
    ) -> Result<CommandState> {
        self.call(guest, "poll_command", |kept, _| {
            match kept.commands.get(id) {
                Some(state) => Ok(state.clone()),
                None => refused("unknown"),
            }
        })
    }

    async fn inventory(
        &self,
        guest: &GuestAddress,
        _after: Option<&str>,
        _limit: u32,
    ) -> Result<InventoryPage> {
        self.thawed().await;
        self.call(guest, "inventory", |kept, _| {
            let database = |name: &String| Database {
                name: name.clone(),
                character_set: None,
                collate: None,
            };
            let user = |(name, granted): (&String, &BTreeSet<String>)| User {
                name: name.clone(),
                host: "%".to_owned(),
                databases: granted.iter().cloned().collect(),
            };
            Ok(InventoryPage {
                counter: kept.counter,
                databases: kept.databases.iter().map(database).collect(),
                users: kept.users.iter().map(user).collect(),
                is_root_enabled: kept.is_root_enabled,
                next: None,
            })
        })
    }

    async fn send_agent(
        &self,
        guest: &GuestAddress,
        agent: &AgentBinary,
        offset: u64,
        piece: &[u8],
    ) -> Result<AgentUpload> {
        self.call(guest, "send_agent", |kept, _| {
            let fresh = || AgentUpload {
                sha256: agent.sha256.clone(),
                length: agent.length,
                received: 0,
            };
            let upload = kept.agent.upload.get_or_insert_with(fresh);
            if upload.sha256 != agent.sha256 {
                *upload = fresh();
            }
            if offset > upload.received {
                return refused(WRONG_OFFSET);
            }
            upload.received = upload.received.max(offset + piece.len() as u64);
            Ok(upload.clone())
        })
    }

    async fn replace_agent(&self, guest: &GuestAddress, sha256: &str) -> Result<AgentUpload> {
        self.call(guest, "replace_agent", |kept, now| {
            let agent = &mut kept.agent;
            let whole = |upload: &AgentUpload| upload.received == upload.length;
            let upload = agent.upload.take();
            if agent.sha256.as_deref() == Some(sha256) {
                return Ok(AgentUpload {
                    sha256: sha256.to_owned(),
                    length: 0,
                    received: 0,
                });
            }
            let Some(upload) = upload.filter(|one| one.sha256 == sha256 && whole(one)) else {
                return refused(AGENT_INCOMPLETE);
            };
            kept.sequence += 1;
            agent.ran.push(sha256.to_owned());
            if agent.is_refusing {
                agent.refused = Some(RefusedAgent {
                    sha256: sha256.to_owned(),
                    message: "it did not serve".to_owned(),
                });
            } else {
                agent.sha256 = Some(sha256.to_owned());
                agent.trial_ends = now + TRIAL;
            }
            Ok(upload)
        })
    }
}

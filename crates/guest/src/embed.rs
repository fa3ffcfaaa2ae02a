//! A real agent over an engine that exists in memory only: the same protocol ends, sockets and
//! TLS as in an instance, for tests of other crates. Not used by the executable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use coffer_core::secret::Secret;
use coffer_engines::EngineError;
use coffer_engines::runtime::{
    ClientAddress, DatabaseInfo, EngineHost, EngineRuntime, Hold, Inventory, Layout, NewUser,
    ProbeReport, Program, ProgramOutput, StopPlan, UserChange,
};
use coffer_wire::guest::v1::Boot;
use tokio::sync::watch;

use crate::agent::{Keeper, Parts, Runtime};
use crate::error::{GuestError, Result};
use crate::init::{Image, Process};

/// What the engine in memory holds, and how it behaves.
#[derive(Debug, Default)]
struct State {
    databases: BTreeMap<String, DatabaseInfo>,
    users: BTreeMap<(String, String), BTreeSet<String>>,
    is_root_enabled: bool,
    changes: u64,
    probes: u64,
    identity: Option<String>,
    is_mute: bool,
    applied: Vec<String>,
    holds: u64,
    visitors: BTreeSet<String>,
    handed_over: Vec<(u64, String)>,
    inbox: Option<File>,
}

/// An engine in memory, its process and its host, all in one. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryEngine {
    state: Arc<Mutex<State>>,
    process: Arc<watch::Sender<Process>>,
    image: Arc<watch::Sender<Image>>,
    layout: Layout,
    port: u16,
}

impl MemoryEngine {
    /// An engine that was never started; its files go below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        let layout = Layout {
            config_dir: dir.join("config"),
            tls_dir: dir.join("tls"),
            run_dir: dir.join("run"),
            log_dir: dir.join("log"),
            data_dir: dir,
        };
        Self {
            state: Arc::default(),
            process: Arc::new(watch::Sender::new(Process::default())),
            image: Arc::new(watch::Sender::new(Image::default())),
            layout,
            port: 0,
        }
    }

    /// The loopback port that interactive streams are connected to.
    #[must_use]
    pub fn with_client_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// An empty file in which the first agent receives another one.
    #[must_use]
    pub fn with_inbox(self, inbox: File) -> Self {
        self.state().inbox = Some(inbox);
        self
    }

    /// An agent's parts around this engine.
    pub fn parts(&self, boot: Boot, state_dir: Option<PathBuf>) -> Parts {
        Parts {
            boot,
            runtime: Runtime::Own(Arc::new(self.clone())),
            host: Arc::new(self.clone()),
            keeper: Arc::new(self.clone()),
            state_dir,
            program: None,
            inbox: self.state().inbox.take(),
        }
    }

    /// Ends the engine's process as a crash would.
    pub fn crash(&self) {
        self.end("was ended by SIGKILL");
    }

    /// Lets probes go unanswered, or answers them again.
    pub fn set_mute(&self, is_mute: bool) {
        self.state().is_mute = is_mute;
    }

    /// Names of the operations that were applied, in order, repeated ones too.
    pub fn applied(&self) -> Vec<String> {
        self.state().applied.clone()
    }

    /// Identity that was given to it.
    pub fn identity(&self) -> Option<String> {
        self.state().identity.clone()
    }

    /// Length and checksum of every agent that was handed over, in order.
    pub fn handed_over(&self) -> Vec<(u64, String)> {
        self.state().handed_over.clone()
    }

    /// How many sessions hold it now.
    pub fn holds(&self) -> u64 {
        self.state().holds
    }

    /// Names of the visitors that are there now.
    pub fn visitors(&self) -> BTreeSet<String> {
        self.state().visitors.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, words: &str) {
        self.process.send_modify(|process| {
            process.running = None;
            process.last_end = words.to_owned();
        });
    }

    fn apply(&self, name: &str, change: impl FnOnce(&mut State)) -> coffer_engines::Result<()> {
        if self.process.borrow().running.is_none() {
            return Err(EngineError::Down {
                why: "it does not run".to_owned(),
            });
        }
        let mut state = self.state();
        change(&mut state);
        state.changes += 1;
        state.applied.push(name.to_owned());
        Ok(())
    }
}

#[async_trait]
impl Keeper for MemoryEngine {
    async fn start(&self, _program: Program, _stop: StopPlan) -> Result<()> {
        if self.process.borrow().running.is_some() {
            return Err(GuestError::Init {
                why: "the engine runs already".to_owned(),
            });
        }
        self.process.send_modify(|process| {
            process.starts += 1;
            let pid = u32::try_from(process.starts).unwrap_or(u32::MAX);
            process.running = Some((1000 + pid, process.starts));
        });
        Ok(())
    }

    /// One that is mute loses every signal but the one that kills.
    async fn signal(&self, signal: i32) -> Result<()> {
        match (signal, self.state().is_mute) {
            (9, _) => self.end("was ended by SIGKILL"),
            (_, false) => self.end("exited with code 0"),
            (_, true) => {}
        }
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<Process> {
        self.process.subscribe()
    }

    async fn install(&self, _name: &str, _content: &str) -> Result<()> {
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    async fn replace(&self, length: u64, sha256: &str) -> Result<()> {
        let mut state = self.state();
        state.handed_over.push((length, sha256.to_owned()));
        Ok(())
    }

    fn image(&self) -> watch::Receiver<Image> {
        self.image.subscribe()
    }
}

#[async_trait]
impl EngineHost for MemoryEngine {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn version(&self) -> &'static str {
        "1"
    }

    async fn run(&self, program: Program) -> coffer_engines::Result<ProgramOutput> {
        Err(EngineError::Failed {
            what: "run a program",
            why: program.path.display().to_string(),
        })
    }
}

/// A hold that counts itself.
#[derive(Debug)]
struct MemoryHold(MemoryEngine);

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.0.state().holds -= 1;
    }
}

#[async_trait]
impl Hold for MemoryHold {
    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("position".to_owned(), self.0.state().changes.to_string())])
    }

    async fn release(self: Box<Self>) -> coffer_engines::Result<()> {
        Ok(())
    }
}

fn key(name: &str, host: Option<&str>) -> (String, String) {
    (name.to_owned(), host.unwrap_or("%").to_owned())
}

#[async_trait]
impl EngineRuntime for MemoryEngine {
    async fn bootstrap(&self, _host: &dyn EngineHost) -> coffer_engines::Result<()> {
        Ok(())
    }

    async fn personalise(
        &self,
        _host: &dyn EngineHost,
        identity: &str,
    ) -> coffer_engines::Result<()> {
        self.state().identity = Some(identity.to_owned());
        Ok(())
    }

    fn launch(&self, _host: &dyn EngineHost) -> Program {
        let path = PathBuf::from("/usr/bin/true");
        Program {
            path,
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
        }
    }

    fn stop_plan(&self) -> StopPlan {
        StopPlan {
            signal: 15,
            grace_ms: 60_000,
        }
    }

    async fn probe(&self, _host: &dyn EngineHost) -> coffer_engines::Result<ProbeReport> {
        if self.state().is_mute || self.process.borrow().running.is_none() {
            return Err(EngineError::Down {
                why: "it does not answer".to_owned(),
            });
        }
        let mut state = self.state();
        state.probes += 1;
        Ok(ProbeReport {
            version: "1.0".to_owned(),
            position: Some(state.probes.to_string()),
            inventory_mark: state.changes.to_string(),
        })
    }

    async fn reload(&self, _host: &dyn EngineHost) -> coffer_engines::Result<()> {
        Ok(())
    }

    async fn inventory(&self, _host: &dyn EngineHost) -> coffer_engines::Result<Inventory> {
        let state = self.state();
        let users = state.users.iter().map(|((name, host), databases)| {
            (
                name.clone(),
                host.clone(),
                databases.iter().cloned().collect(),
            )
        });
        Ok(Inventory {
            databases: state.databases.values().cloned().collect(),
            users: users.collect(),
            is_root_enabled: state.is_root_enabled,
        })
    }

    async fn create_databases(
        &self,
        _host: &dyn EngineHost,
        databases: &[DatabaseInfo],
    ) -> coffer_engines::Result<()> {
        self.apply("create-databases", |state| {
            let named = databases
                .iter()
                .map(|database| (database.0.clone(), database.clone()));
            state.databases.extend(named);
        })
    }

    async fn drop_database(
        &self,
        _host: &dyn EngineHost,
        name: &str,
    ) -> coffer_engines::Result<()> {
        self.apply("drop-database", |state| {
            state.databases.remove(name);
        })
    }

    async fn create_users(
        &self,
        _host: &dyn EngineHost,
        users: &[NewUser],
    ) -> coffer_engines::Result<()> {
        self.apply("create-users", |state| {
            for user in users {
                let granted = state.users.entry(key(&user.name, user.host.as_deref()));
                granted.or_default().extend(user.databases.iter().cloned());
            }
        })
    }

    async fn change_user(
        &self,
        _host: &dyn EngineHost,
        change: &UserChange,
    ) -> coffer_engines::Result<()> {
        self.apply("change-user", |state| {
            let old = key(&change.name, change.host.as_deref());
            if let Some(granted) = state.users.remove(&old) {
                let name = change.new_name.as_ref().unwrap_or(&old.0).clone();
                let host = change.new_host.as_ref().unwrap_or(&old.1).clone();
                state.users.insert((name, host), granted);
            }
        })
    }

    async fn drop_user(
        &self,
        _host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
    ) -> coffer_engines::Result<()> {
        self.apply("drop-user", |state| {
            state.users.remove(&key(name, from));
        })
    }

    async fn grant(
        &self,
        _host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        databases: &[String],
    ) -> coffer_engines::Result<()> {
        if !self.state().users.contains_key(&key(name, from)) {
            return Err(EngineError::Missing {
                kind: "user",
                name: name.to_owned(),
            });
        }
        self.apply("grant", |state| {
            let granted = state.users.entry(key(name, from)).or_default();
            granted.extend(databases.iter().cloned());
        })
    }

    async fn revoke(
        &self,
        _host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        database: &str,
    ) -> coffer_engines::Result<()> {
        self.apply("revoke", |state| {
            if let Some(granted) = state.users.get_mut(&key(name, from)) {
                granted.remove(database);
            }
        })
    }

    async fn enable_root(
        &self,
        _host: &dyn EngineHost,
        _password: &Secret,
    ) -> coffer_engines::Result<()> {
        self.apply("enable-root", |state| state.is_root_enabled = true)
    }

    async fn disable_root(&self, _host: &dyn EngineHost) -> coffer_engines::Result<()> {
        self.apply("disable-root", |state| state.is_root_enabled = false)
    }

    async fn admit_visitor(
        &self,
        _host: &dyn EngineHost,
        user: &NewUser,
    ) -> coffer_engines::Result<()> {
        self.state().visitors.insert(user.name.clone());
        Ok(())
    }

    async fn dismiss_visitors(
        &self,
        _host: &dyn EngineHost,
        name: Option<&str>,
    ) -> coffer_engines::Result<()> {
        self.state()
            .visitors
            .retain(|visitor| name.is_some_and(|name| name != visitor));
        Ok(())
    }

    fn client_address(&self, _host: &dyn EngineHost) -> ClientAddress {
        ClientAddress::Loopback(self.port)
    }

    async fn quiesce(&self, _host: &dyn EngineHost) -> coffer_engines::Result<Box<dyn Hold>> {
        self.state().holds += 1;
        Ok(Box::new(MemoryHold(self.clone())))
    }
}

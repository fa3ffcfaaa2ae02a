//! The agent: listens for the control side, keeps the engine as the spec says, reports status.
//!
//! [`serve`] is a whole agent over whatever engine, host and keeper it is given; under init they
//! are the real ones, in tests of other crates those of [`crate::embed`]. The agent dials nobody
//! and goes on by itself when nobody dials it.

mod commands;
mod file;
mod host;
mod http;
mod identity;
mod inventory;
mod last_words;
mod reconcile;
mod replace;
mod routes;
mod sessions;
mod spec;
mod status;
mod store;
mod streams;
mod visits;

use std::fmt::Debug;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_engines::runtime::{EngineHost, EngineRuntime};
use coffer_wire::guest::v1::Boot;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};

use crate::boot;
use crate::clock;
use crate::error::{GuestError, Result};
use crate::init::spawn;
use crate::task::{EndWithMe, Tasks};

pub use host::{InitLine, Keeper};
pub use identity::Identity;

/// The engine's runtime: one of the registry's, or one of a test's.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Of the registry.
    Known(&'static dyn EngineRuntime),
    /// Made for the occasion.
    Own(Arc<dyn EngineRuntime>),
}

impl Deref for Runtime {
    type Target = dyn EngineRuntime;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Known(runtime) => *runtime,
            Self::Own(runtime) => runtime.as_ref(),
        }
    }
}

/// What an agent is made of.
#[derive(Debug)]
pub struct Parts {
    /// The boot data.
    pub boot: Boot,
    /// The engine.
    pub runtime: Runtime,
    /// What the engine's runtime works with.
    pub host: Arc<dyn EngineHost>,
    /// What keeps the engine's process.
    pub keeper: Arc<dyn Keeper>,
    /// Where keys and memory are kept; without it they are gone with the agent.
    pub state_dir: Option<PathBuf>,
    /// The agent's own binary, of which the status tells the checksum.
    pub program: Option<PathBuf>,
    /// An empty file for the binary of another agent; without it this one cannot be replaced.
    pub inbox: Option<File>,
}

/// An agent's state, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) boot: Boot,
    pub(crate) runtime: Runtime,
    pub(crate) host: Arc<dyn EngineHost>,
    pub(crate) keeper: Arc<dyn Keeper>,
    pub(crate) identity: Identity,
    pub(crate) store: store::Store,
    pub(crate) status: status::StatusBoard,
    pub(crate) tasks: Arc<Tasks>,
    /// Grows when there is another spec.
    pub(crate) spec_changed: watch::Sender<u64>,
    /// Asks for a probe now.
    pub(crate) probe_now: Notify,
    /// Asks for a restart of the engine.
    pub(crate) restarts: mpsc::Sender<reconcile::Restart>,
    pub(crate) commands: commands::Commands,
    pub(crate) streams: streams::Streams,
    pub(crate) sessions: sessions::Sessions,
    pub(crate) visits: visits::Visits,
    pub(crate) inventory: inventory::Cache,
    pub(crate) inbox: replace::Inbox,
}

/// Runs an agent on these listeners, and on the addresses in the boot data, until dropped;
/// returns only an error of its start.
pub async fn serve(parts: Parts, listeners: Vec<TcpListener>) -> Result<()> {
    let tasks = Arc::new(Tasks::default());
    let _end = EndWithMe(Arc::clone(&tasks));
    serve_with(parts, listeners, tasks).await
}

async fn serve_with(
    mut parts: Parts,
    listeners: Vec<TcpListener>,
    tasks: Arc<Tasks>,
) -> Result<()> {
    let (restarts, restart_requests) = mpsc::channel(16);
    let program = parts.program.take();
    let shared = Arc::new(open(parts, Arc::clone(&tasks), restarts).await?);
    let config = Arc::new(shared.identity.server_config(&shared.boot.link_ca_pem)?);
    // A test hands its listeners over; init's agent is told where to listen.
    for address in shared.boot.bind.clone() {
        tasks.start(http::listen_at(
            Arc::clone(&shared),
            Arc::clone(&config),
            address,
        ));
    }
    for listener in listeners {
        tasks.start(http::listen(
            Arc::clone(&shared),
            Arc::clone(&config),
            listener,
        ));
    }
    tasks.start(visits::sweep(Arc::clone(&shared)));
    tasks.start(replace::tell(Arc::clone(&shared), program));
    reconcile::run(shared, restart_requests).await;
    Ok(())
}

async fn open(
    parts: Parts,
    tasks: Arc<Tasks>,
    restarts: mpsc::Sender<reconcile::Restart>,
) -> Result<Shared> {
    let server_id = parts.boot.server_id.clone();
    let dir = parts.state_dir.as_deref();
    let store = store::Store::load(dir.map(|dir| dir.join("state.json")), &server_id);
    if !store.look(|memory| memory.has_keys).await
        && let Some(dir) = dir
    {
        // None yet, or those of the server whose volume was cloned.
        forget_keys(dir)?;
    }
    let link_cert = store.look(|memory| memory.link_cert_pem.clone()).await;
    let identity = Identity::load(dir, &server_id, link_cert.as_deref())?;
    let note = |memory: &mut store::Memory| -> std::result::Result<(), GuestError> {
        memory.has_keys = true;
        Ok(())
    };
    store.change(note).await??;
    let counter = store.look(|memory| memory.inventory_counter).await;
    let version = store
        .look(|memory| memory.spec.as_ref().map_or(0, |spec| spec.version))
        .await;
    Ok(Shared {
        boot: parts.boot,
        runtime: parts.runtime,
        host: parts.host,
        keeper: parts.keeper,
        identity,
        store,
        status: status::StatusBoard::new(clock::unix_micros(), counter),
        tasks,
        spec_changed: watch::Sender::new(version),
        probe_now: Notify::new(),
        restarts,
        commands: commands::Commands::default(),
        streams: streams::Streams::default(),
        sessions: sessions::Sessions::default(),
        visits: visits::Visits::default(),
        inventory: inventory::Cache::default(),
        inbox: replace::Inbox::new(parts.inbox),
    })
}

fn forget_keys(dir: &Path) -> Result<()> {
    for name in identity::FILES {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GuestError::io(format!("remove {}", path.display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The agent under init, in the sandbox: never returns but by an error.
pub fn run_under_init() -> Result<()> {
    let boot = boot::read(Path::new(boot::BOOT_PATH))?;
    let socket = StdUnixStream::from(spawn::inherited(3)?);
    // An init that is older than replacing gives none.
    let inbox = spawn::inherited(4).ok().map(File::from);
    // One that was executed from memory has no name of its own.
    nix::sys::prctl::set_name(c"coffer-guest").map_err(GuestError::sys("name the agent"))?;
    executor()?.block_on(async {
        let tasks = Arc::new(Tasks::default());
        let runtime = known_runtime(&boot)?;
        let line = Arc::new(InitLine::new(&boot, socket, &tasks)?);
        line.ready().await?;
        let state_dir = Some(boot::agent_dir(&boot));
        let parts = Parts {
            boot,
            runtime,
            host: Arc::clone(&line) as _,
            keeper: line,
            state_dir,
            program: Some(PathBuf::from("/proc/self/exe")),
            inbox,
        };
        serve_with(parts, Vec::new(), tasks).await
    })
}

/// Makes a template's data directory, in the sandbox; returns when it is made.
pub fn bootstrap_under_init() -> Result<()> {
    let boot = boot::read(Path::new(boot::BOOT_PATH))?;
    let socket = StdUnixStream::from(spawn::inherited(3)?);
    executor()?.block_on(async {
        let tasks = Tasks::default();
        let runtime = known_runtime(&boot)?;
        let line = InitLine::new(&boot, socket, &tasks)?;
        Ok(runtime.bootstrap(&line).await?)
    })
}

fn known_runtime(boot: &Boot) -> Result<Runtime> {
    let unknown = || GuestError::Boot {
        why: format!(
            "this guest does not know the engine '{}': it needs a newer root",
            boot.engine
        ),
    };
    coffer_engines::engine(&boot.engine)
        .map(|engine| Runtime::Known(engine.runtime()))
        .ok_or_else(unknown)
}

/// One thread: the agent has little to do and little memory to do it in.
fn executor() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(GuestError::io("start the agent"))
}

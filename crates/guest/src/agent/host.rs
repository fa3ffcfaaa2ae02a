//! The agent's end of the line to init: what the engine's runtime is given to work with, and how
//! the engine's process is started, stopped and watched.

use std::collections::HashMap;
use std::fmt::Debug;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use coffer_engines::EngineError;
use coffer_engines::runtime::{EngineHost, Layout, Program, ProgramOutput, StopPlan};
use coffer_wire::guest::v1::Boot;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot, watch};

use crate::boot;
use crate::clock;
use crate::error::{GuestError, Result};
use crate::init::protocol::{Ask, Image, Process, ProgramSpec, Request, Tell};
use crate::task::Tasks;

/// Keeps the engine's process; implemented by init's end and by what tests embed.
#[async_trait]
pub trait Keeper: Send + Sync + Debug {
    /// Starts the engine; refused while it runs. The process is seen by [`Keeper::watch`] when
    /// this returns.
    async fn start(&self, program: Program, stop: StopPlan) -> Result<()>;

    /// Sends the engine a signal.
    async fn signal(&self, signal: i32) -> Result<()>;

    /// The engine's process, as it is and as it changes.
    fn watch(&self) -> watch::Receiver<Process>;

    /// Puts a file into the TLS directory that only the engine's user can read.
    async fn install(&self, name: &str, content: &str) -> Result<()>;

    /// Says that the agent serves.
    async fn ready(&self) -> Result<()>;

    /// Hands over another agent's binary, which is in the inbox; this one is ended then.
    async fn replace(&self, length: u64, sha256: &str) -> Result<()>;

    /// What is known of the agent's binary, as it is and as it changes.
    fn image(&self) -> watch::Receiver<Image>;
}

/// Answers that are waited for.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Tell>>>>;

/// The line to init.
#[derive(Debug)]
pub struct InitLine {
    layout: Layout,
    version: String,
    next_id: AtomicU64,
    waiting: Waiting,
    process: watch::Receiver<Process>,
    image: watch::Receiver<Image>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
}

impl InitLine {
    /// Takes the socket from init. Its tasks end the process when init is gone.
    pub(crate) fn new(boot: &Boot, socket: StdUnixStream, tasks: &Tasks) -> Result<Self> {
        socket
            .set_nonblocking(true)
            .map_err(GuestError::io("use the line to init"))?;
        let socket =
            UnixStream::from_std(socket).map_err(GuestError::io("use the line to init"))?;
        let (read, mut write) = socket.into_split();
        let (process_sender, process) = watch::channel(Process::default());
        let (image_sender, image) = watch::channel(Image::default());
        // LIMIT: one request per program or command that runs, and those are bounded.
        let (outgoing, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting = Waiting::default();
        tasks.start(hear(
            read,
            Arc::clone(&waiting),
            process_sender,
            image_sender,
        ));
        tasks.start(async move {
            while let Some(line) = lines.recv().await {
                if write.write_all(&line).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            layout: boot::layout(boot),
            version: boot.engine_version.clone(),
            // Init may still answer a former agent: numbers of two agents must not meet.
            next_id: AtomicU64::new(clock::unix_micros()),
            waiting,
            process,
            image,
            outgoing,
        })
    }

    /// Waits until init has told of the engine's process.
    pub(crate) async fn ready(&self) -> Result<()> {
        let told = self.process.clone().changed().await;
        told.map_err(|_| GuestError::Init {
            why: "init is gone".to_owned(),
        })
    }

    async fn ask(&self, ask: Ask) -> Result<Tell> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let gone = || GuestError::Init {
            why: "init does not answer".to_owned(),
        };
        let mut cancel = CancelRun {
            line: self,
            run: matches!(ask, Ask::Run { .. }).then_some(id),
        };
        let (sender, answer) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, sender);
        self.send(id, ask)?;
        let answer = answer.await.map_err(|_| gone())?;
        cancel.run = None;
        match answer {
            Tell::Refused { message, .. } => Err(GuestError::Init { why: message }),
            other => Ok(other),
        }
    }

    fn send(&self, id: u64, ask: Ask) -> Result<()> {
        let mut line = serde_json::to_vec(&Request { id, ask }).expect("plain data become JSON");
        line.push(b'\n');
        let gone = |_| GuestError::Init {
            why: "init is gone".to_owned(),
        };
        self.outgoing.send(line).map_err(gone)
    }
}

/// Kills a program whose caller waits no more.
struct CancelRun<'a> {
    line: &'a InitLine,
    run: Option<u64>,
}

impl Drop for CancelRun<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run {
            self.line
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&run);
            let id = self.line.next_id.fetch_add(1, Ordering::Relaxed);
            // If init is gone, so is the program.
            self.line.send(id, Ask::Cancel { run }).ok();
        }
    }
}

async fn hear(
    read: OwnedReadHalf,
    waiting: Waiting,
    process_sender: watch::Sender<Process>,
    image_sender: watch::Sender<Image>,
) {
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let tell: Tell = match serde_json::from_str(&line) {
            Ok(tell) => tell,
            Err(error) => {
                crate::log::warn(format_args!("a line of init is not understood: {error}"));
                continue;
            }
        };
        let id = match &tell {
            Tell::Process { process } => {
                process_sender.send_replace(process.clone());
                continue;
            }
            Tell::Agent { image } => {
                image_sender.send_replace(image.clone());
                continue;
            }
            Tell::Done { id } | Tell::Ran { id, .. } | Tell::Refused { id, .. } => *id,
        };
        let waiter = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(waiter) = waiter {
            waiter.send(tell).ok();
        }
    }
    // Whoever waits learns it by the dropped senders.
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

fn program_spec(program: Program) -> (ProgramSpec, Vec<u8>) {
    let path = program.path.display().to_string();
    (
        ProgramSpec {
            path,
            args: program.args,
            env: program.env,
        },
        program.stdin,
    )
}

#[async_trait]
impl Keeper for InitLine {
    async fn start(&self, program: Program, stop: StopPlan) -> Result<()> {
        let (program, _) = program_spec(program);
        let ask = Ask::Start {
            program,
            stop_signal: stop.signal,
            grace_ms: stop.grace_ms,
        };
        self.ask(ask).await.map(|_| ())
    }

    async fn signal(&self, signal: i32) -> Result<()> {
        self.ask(Ask::Signal { signal }).await.map(|_| ())
    }

    fn watch(&self) -> watch::Receiver<Process> {
        self.process.clone()
    }

    async fn install(&self, name: &str, content: &str) -> Result<()> {
        let (name, content) = (name.to_owned(), content.to_owned());
        self.ask(Ask::Install { name, content }).await.map(|_| ())
    }

    async fn ready(&self) -> Result<()> {
        self.ask(Ask::Ready).await.map(|_| ())
    }

    async fn replace(&self, length: u64, sha256: &str) -> Result<()> {
        let sha256 = sha256.to_owned();
        self.ask(Ask::Replace { length, sha256 }).await.map(|_| ())
    }

    fn image(&self) -> watch::Receiver<Image> {
        self.image.clone()
    }
}

#[async_trait]
impl EngineHost for InitLine {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn version(&self) -> &str {
        &self.version
    }

    async fn run(&self, program: Program) -> coffer_engines::Result<ProgramOutput> {
        let path = program.path.display().to_string();
        let failed = |why| EngineError::Failed {
            what: "run a program",
            why,
        };
        let (program, stdin) = program_spec(program);
        match self.ask(Ask::Run { program, stdin }).await {
            Ok(Tell::Ran { code, output, .. }) => Ok(ProgramOutput { code, output }),
            Ok(_) => Err(failed(format!("{path}: init's answer is not understood"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

//! Init's state and its one loop: what the agent asks, what ends, what is due.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use coffer_engines::runtime::Layout;
use coffer_wire::guest::v1::Boot;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::boot;
use crate::clock;
use crate::error::{GuestError, Result};
use crate::init::Mode;
use crate::init::children::{self, Engine, Of, Run};
use crate::init::choice::{Choice, Verdict};
use crate::init::image;
use crate::init::line::Lines;
use crate::init::prepare::Installed;
use crate::init::protocol::{Ask, Numbered, Process, ProgramSpec, Request, Tell};
use crate::init::spawn::{self, Launch, Stdio};
use crate::limits;
use crate::log;

/// Pause between two looks at what an engine left; unit: milliseconds.
const ENGINE_REMAINS_PACE: u8 = 2;

/// The running agent.
#[derive(Debug)]
struct Agent {
    pid: Pid,
    lines: Lines,
    started_at: Instant,
    /// It closed its socket, which it does by ending: killed at this time if it has not.
    kill_due: Option<Instant>,
    /// Another agent's binary as far as this one has received it.
    inbox: Option<File>,
    /// It makes way for another one, and is ended at this time.
    leave_due: Option<Instant>,
}

/// Everything init knows.
#[derive(Debug)]
pub(super) struct Supervisor {
    boot: Boot,
    layout: Layout,
    mode: Mode,
    agent: Option<Agent>,
    agent_due: Option<Instant>,
    agent_pause: Duration,
    choice: Choice,
    engine: Option<Engine>,
    runs: Vec<Run>,
    process: Process,
    installed: Installed,
    is_stopping: bool,
    stop_due: Option<Instant>,
    bootstrap_code: Option<i32>,
}

impl Supervisor {
    pub(super) fn new(boot: Boot, mode: Mode) -> Self {
        Self {
            layout: boot::layout(&boot),
            boot,
            mode,
            agent: None,
            agent_due: None,
            agent_pause: limits::AGENT_RESTART_FIRST,
            choice: Choice::default(),
            engine: None,
            runs: Vec::new(),
            process: Process::default(),
            installed: Installed::default(),
            is_stopping: false,
            stop_due: None,
            bootstrap_code: None,
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        let is_told = self.is_stopping || self.bootstrap_code.is_some();
        is_told && self.engine.is_none() && self.agent.is_none()
    }

    /// How it went.
    pub(super) fn result(&self) -> Result<()> {
        match (self.mode, self.bootstrap_code) {
            (Mode::Instance, _) | (Mode::Bootstrap, Some(0)) => Ok(()),
            (Mode::Bootstrap, _) => Err(GuestError::Init {
                why: "the data directory was not made".to_owned(),
            }),
        }
    }

    /// Starts the agent with a fresh socket to init.
    pub(super) fn start_agent(&mut self) {
        self.agent_due = None;
        match self.try_start_agent() {
            Ok(agent) => {
                self.agent = Some(agent);
                self.tell_image();
                self.tell_process();
            }
            Err(error) => {
                log::warn(format_args!("{error}"));
                self.choice.failed(false, "could not be started");
                self.agent_later();
            }
        }
    }

    fn try_start_agent(&mut self) -> Result<Agent> {
        let (own, theirs) =
            UnixStream::pair().map_err(GuestError::io("make the agent's socket"))?;
        own.set_nonblocking(true)
            .map_err(GuestError::io("make the agent's socket"))?;
        let mut args = vec!["agent".to_owned()];
        if self.mode == Mode::Bootstrap {
            args.push("--bootstrap".to_owned());
        }
        // Without one the agent serves, and cannot be replaced.
        let inbox = image::inbox()
            .map_err(|error| log::warn(format_args!("{error}")))
            .ok();
        let theirs_too = inbox.as_ref().and_then(|inbox| inbox.try_clone().ok());
        let inherited = std::iter::once(theirs.into()).chain(theirs_too.map(Into::into));
        let binary = self.choice.current();
        let started = spawn::start(Launch {
            path: boot::GUEST_PATH.to_owned(),
            image: binary.as_ref().map(|image| &image.file),
            args,
            // One arena: the agent's few threads have little to allocate.
            env: vec![("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())],
            uid: self.boot.agent_uid,
            confine: None,
            inherited: inherited.collect(),
            stdio: Stdio::default(),
        })?;
        Ok(Agent {
            pid: started.pid,
            lines: Lines::new(own),
            started_at: clock::now(),
            kill_due: None,
            inbox,
            leave_due: None,
        })
    }

    fn agent_later(&mut self) {
        self.agent_due = Some(clock::now() + self.agent_pause);
        self.agent_pause = (self.agent_pause * 2).min(limits::AGENT_RESTART_MAX);
    }

    /// Begins the stop of the sandbox: the engine cleanly, then the agent.
    pub(super) fn stop(&mut self) {
        if self.is_stopping {
            return;
        }
        self.is_stopping = true;
        self.agent_due = None;
        for run in &self.runs {
            run.kill();
        }
        match &self.engine {
            Some(engine) => {
                kill(engine.started.pid, engine.stop_signal).ok();
                let grace = Duration::from_millis(engine.grace_ms).min(limits::STOP_MAX);
                self.stop_due = Some(clock::now() + grace);
            }
            None => self.stop_agent(),
        }
    }

    fn stop_agent(&mut self) {
        if let Some(agent) = &self.agent {
            kill(agent.pid, Signal::SIGTERM).ok();
            self.stop_due = Some(clock::now() + limits::AGENT_STOP);
        }
    }

    /// Sleeps until something can be done.
    pub(super) fn wait(&mut self, signals: BorrowedFd<'_>) {
        let mut watched = vec![PollFd::new(signals, PollFlags::POLLIN)];
        if let Some(agent) = self.agent.as_ref().filter(|agent| agent.kill_due.is_none()) {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, agent.lines.has_outgoing());
            watched.push(PollFd::new(agent.lines.socket.as_fd(), flags));
        }
        let engine = self.engine.iter().map(|engine| &engine.output);
        for output in engine.chain(self.runs.iter().map(|run| &run.output)) {
            if let Some(pipe) = &output.pipe {
                watched.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
        }
        for stdin in self.runs.iter().filter_map(|run| run.stdin.as_ref()) {
            watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        let agent = self.agent.as_ref();
        let kill_due = agent.and_then(|agent| agent.kill_due);
        let leave_due = agent.and_then(|agent| agent.leave_due);
        let is_stopping = self.is_stopping;
        let trial_due = self.choice.due();
        let dues = [
            self.agent_due,
            self.stop_due,
            kill_due,
            leave_due.filter(|_| !is_stopping),
            trial_due.filter(|_| !is_stopping),
        ];
        let timeout = match dues.into_iter().flatten().min() {
            Some(due) => {
                let left = due.saturating_duration_since(clock::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        // An interrupted or failed wait is a turn with nothing to do.
        poll(&mut watched, timeout).ok();
    }

    /// Does what can be done now.
    pub(super) fn turn(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.output.read();
        }
        for run in &mut self.runs {
            run.output.read();
            run.feed();
        }
        self.hear_agent();
        self.reap();
        if !self.is_stopping {
            self.decide();
        }
        let now = clock::now();
        if self.agent_due.is_some_and(|due| due <= now) && !self.is_stopping {
            self.start_agent();
        }
        if self.stop_due.is_some_and(|due| due <= now) {
            self.stop_overdue();
        }
    }

    /// What is due of an agent that makes way, and of one on trial.
    fn decide(&mut self) {
        let now = clock::now();
        if let Some(agent) = &self.agent
            && agent.leave_due.is_some_and(|due| due <= now)
        {
            self.end_agent();
        }
        match self.choice.decide(now) {
            Verdict::Stays => {}
            Verdict::Confirmed => self.tell_image(),
            Verdict::GivenUp => {
                log::warn(format_args!(
                    "the other agent does not serve and is given up"
                ));
                if let Some(agent) = &mut self.agent {
                    agent.leave_due = Some(now);
                }
                self.end_agent();
            }
        }
    }

    /// Kills the agent: it keeps nothing that a signal would let it save.
    fn end_agent(&mut self) {
        if let Some(agent) = &self.agent {
            kill(agent.pid, Signal::SIGKILL).ok();
        }
    }

    /// Takes another agent's binary from the inbox; the running one makes way in a moment.
    fn replace(&mut self, length: u64, sha256: &str) -> Result<()> {
        let why = if self.mode == Mode::Bootstrap || self.is_stopping {
            "the sandbox stops"
        } else if self.choice.is_on_trial() {
            "another agent is on trial"
        } else {
            let now = clock::now();
            let agent = self.agent.as_mut();
            let inbox = agent.and_then(|agent| {
                // One that offers what it did not check makes way as well: for itself, with a new
                // inbox.
                agent.leave_due = Some(now + limits::AGENT_FAREWELL);
                agent.inbox.take()
            });
            let inbox = inbox.ok_or_else(|| GuestError::Init {
                why: "there is no inbox for another agent".to_owned(),
            })?;
            let image = image::accept(inbox, length, sha256)?;
            log::info(format_args!("another agent was received: {sha256}"));
            self.choice.offer(image, now);
            return Ok(());
        };
        Err(GuestError::Init {
            why: why.to_owned(),
        })
    }

    fn stop_overdue(&mut self) {
        self.stop_due = None;
        if let Some(engine) = &self.engine {
            log::warn(format_args!(
                "the engine did not stop in its time and is killed"
            ));
            engine.kill();
        } else if let Some(agent) = &self.agent {
            kill(agent.pid, Signal::SIGKILL).ok();
        }
    }

    fn hear_agent(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if let Some(due) = agent.kill_due {
            if due <= clock::now() {
                log::warn(format_args!(
                    "the agent left its line to init, does not end, and is killed"
                ));
                kill(agent.pid, Signal::SIGKILL).ok();
            }
            return;
        }
        let heard = agent.lines.flush().and_then(|()| agent.lines.read());
        match heard {
            Ok(lines) => {
                for line in lines {
                    self.answer(&line);
                }
            }
            Err(_) => agent.kill_due = Some(clock::now() + patience(self.mode)),
        }
    }

    fn answer(&mut self, line: &[u8]) {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                log::warn(format_args!(
                    "a line of the agent is not understood: {error}"
                ));
                // A newer agent may ask what this init does not know, and waits for an answer.
                if let Ok(Numbered { id }) = serde_json::from_slice(line) {
                    let message = "this init does not know the question".to_owned();
                    self.tell(&Tell::Refused { id, message });
                }
                return;
            }
        };
        let id = request.id;
        let done = match request.ask {
            Ask::Start {
                program,
                stop_signal,
                grace_ms,
            } => self.start_engine(program, (stop_signal, grace_ms)),
            Ask::Signal { signal } => self.signal_engine(signal),
            Ask::Install { name, content } => self.installed.put(&self.boot, &name, &content),
            Ask::Cancel { run } => {
                self.runs
                    .iter()
                    .filter(|known| known.id == run)
                    .for_each(Run::kill);
                Ok(())
            }
            Ask::Ready => {
                self.choice.ready(clock::now());
                Ok(())
            }
            Ask::Replace { length, sha256 } => self.replace(length, &sha256),
            Ask::Run { program, stdin } => match self.start_run(id, program, stdin) {
                // Answered when it ends.
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        self.tell(&match done {
            Ok(()) => Tell::Done { id },
            Err(error) => Tell::Refused {
                id,
                message: error.to_string(),
            },
        });
    }

    fn start_run(&mut self, id: u64, program: ProgramSpec, stdin: Vec<u8>) -> Result<()> {
        if self.is_stopping || self.runs.len() >= limits::PROGRAMS_MAX {
            return Err(GuestError::Init {
                why: "no more programs can run".to_owned(),
            });
        }
        let binary = self.choice.current();
        let run = children::start_run(self.of(binary.as_deref()), id, program, stdin)?;
        self.runs.push(run);
        Ok(())
    }

    fn of<'a>(&'a self, binary: Option<&'a image::Image>) -> Of<'a> {
        Of {
            boot: &self.boot,
            layout: &self.layout,
            image: binary.map(|image| &image.file),
        }
    }

    fn start_engine(&mut self, program: ProgramSpec, plan: (i32, u64)) -> Result<()> {
        let why = if self.is_stopping {
            "the sandbox stops"
        } else if self.engine.is_some() {
            "the engine runs already"
        } else {
            let engine = children::start_engine(self.of(None), program, plan)?;
            let pid = u32::try_from(engine.started.pid.as_raw()).unwrap_or(0);
            log::info(format_args!("the engine was started, pid {pid}"));
            self.process.running = Some((pid, engine.started.start_ticks));
            self.process.starts += 1;
            self.engine = Some(engine);
            self.tell_process();
            return Ok(());
        };
        Err(GuestError::Init {
            why: why.to_owned(),
        })
    }

    fn signal_engine(&self, signal: i32) -> Result<()> {
        let signal = children::signal_of(signal)?;
        match &self.engine {
            Some(engine) if signal == Signal::SIGKILL => engine.kill(),
            Some(engine) => {
                kill(engine.started.pid, signal).map_err(GuestError::sys("signal the engine"))?;
            }
            None => {
                return Err(GuestError::Init {
                    why: "the engine does not run".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match children::ended(status) {
                Some((pid, code, words)) => self.ended(pid, code, words),
                None => break,
            }
        }
    }

    fn ended(&mut self, pid: Pid, code: Option<i32>, words: String) {
        if self
            .engine
            .as_ref()
            .is_some_and(|engine| engine.started.pid == pid)
        {
            self.engine_ended(words);
        } else if self.agent.as_ref().is_some_and(|agent| agent.pid == pid) {
            self.agent_ended(code, &words);
        } else if let Some(index) = self.runs.iter().position(|run| run.pid == pid) {
            let mut run = self.runs.swap_remove(index);
            run.output.read();
            self.tell(&Tell::Ran {
                id: run.id,
                code,
                output: run.output.text(),
            });
        }
    }

    fn engine_ended(&mut self, words: String) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        engine.output.read();
        self.end_what_is_left();
        log::info(format_args!("the engine {words}"));
        self.process.running = None;
        self.process.last_end = words;
        self.process.output = engine.output.text();
        self.tell_process();
        if self.is_stopping {
            self.stop_due = None;
            self.stop_agent();
        }
    }

    /// Ends what the engine left behind, a tenant's program, too, and waits for it: the engine's
    /// next process would find its files and its shared memory in use, and give up.
    fn end_what_is_left(&mut self) {
        let end = clock::now() + limits::ENGINE_REMAINS_MAX;
        while !self.kill_what_is_left() {
            if clock::now() >= end {
                log::warn(format_args!("what the engine left does not end"));
                return;
            }
            // Nothing is watched: this only lets the dying have the processor.
            poll(&mut [], PollTimeout::from(ENGINE_REMAINS_PACE)).ok();
            self.reap();
        }
    }

    fn kill_what_is_left(&self) -> bool {
        if boot::is_shared(&self.boot) {
            return spawn::kill_all_but(self.agent.as_ref().map(|agent| agent.pid));
        }
        spawn::kill_all_of(self.boot.engine_uid)
    }

    fn agent_ended(&mut self, code: Option<i32>, words: &str) {
        let Some(agent) = self.agent.take() else {
            return;
        };
        for run in &self.runs {
            run.kill();
        }
        if self.mode == Mode::Bootstrap {
            log::info(format_args!("the bootstrap {words}"));
            self.bootstrap_code = Some(code.unwrap_or(1));
            return;
        }
        if self.is_stopping {
            return;
        }
        if agent.leave_due.is_some() {
            self.agent_pause = limits::AGENT_RESTART_FIRST;
            self.agent_due = Some(clock::now());
            return;
        }
        log::warn(format_args!("the agent {words} and is started again"));
        let lived = clock::now().saturating_duration_since(agent.started_at);
        let has_worked = lived >= limits::AGENT_WORKS_AFTER;
        if has_worked {
            self.agent_pause = limits::AGENT_RESTART_FIRST;
        }
        self.choice.failed(has_worked, words);
        self.agent_later();
    }

    fn tell_image(&mut self) {
        let image = self.choice.told();
        self.tell(&Tell::Agent { image });
    }

    fn tell_process(&mut self) {
        self.tell(&Tell::Process {
            process: self.process.clone(),
        });
    }

    fn tell(&mut self, tell: &Tell) {
        let Some(agent) = &mut self.agent else { return };
        let line = serde_json::to_vec(tell).expect("plain data become JSON");
        if let Err(error) = agent.lines.push(&line) {
            log::warn(format_args!("tell the agent: {error}"));
            // It may just be ending, with a good exit code.
            let due = clock::now() + patience(self.mode);
            agent.kill_due.get_or_insert(due);
        }
    }
}

/// How long an agent that left its line to init may take to end. The exit code of a bootstrap is
/// what the data directory is judged by, so on a busy host it is waited for.
const fn patience(mode: Mode) -> Duration {
    match mode {
        Mode::Instance => limits::AGENT_STOP,
        Mode::Bootstrap => limits::BOOTSTRAP_END,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_agent(mode: Mode) -> (Supervisor, UnixStream) {
        let boot = Boot {
            protocol: 1,
            server_id: String::new(),
            instance_id: None,
            link_ca_pem: String::new(),
            bind: Vec::new(),
            engine: String::new(),
            engine_version: String::new(),
            agent_uid: 1,
            engine_uid: 2,
            data_dir: "/data".to_owned(),
            memory_mib: 1,
            vcpus: 1,
        };
        let (own, theirs) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let mut supervisor = Supervisor::new(boot, mode);
        supervisor.agent = Some(Agent {
            // No test waits long enough for this to be signalled.
            pid: Pid::this(),
            lines: Lines::new(own),
            started_at: clock::now(),
            kill_due: None,
            inbox: None,
            leave_due: None,
        });
        (supervisor, theirs)
    }

    fn left(supervisor: &Supervisor) -> Duration {
        let due = supervisor.agent.as_ref().unwrap().kill_due;
        due.unwrap().saturating_duration_since(clock::now())
    }

    #[test]
    fn a_bootstrap_that_closed_its_line_has_time_to_end() {
        for (mode, least) in [
            (Mode::Instance, Duration::from_secs(1)),
            (Mode::Bootstrap, Duration::from_secs(30)),
        ] {
            let (mut heard, theirs) = with_agent(mode);
            drop(theirs);
            heard.hear_agent();
            assert!(left(&heard) >= least, "{mode:?}: {:?}", left(&heard));
            let (mut told, theirs) = with_agent(mode);
            drop(theirs);
            told.tell_process();
            assert!(left(&told) >= least, "{mode:?}: {:?}", left(&told));
        }
    }
}

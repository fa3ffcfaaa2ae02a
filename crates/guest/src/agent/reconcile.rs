//! The one loop that owns the engine: it compares the spec with what is and does the next thing.
//!
//! Nothing else starts, stops or probes the engine. The loop needs nobody: after a restart of the
//! sandbox it starts the engine from the spec that was kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coffer_engines::runtime::{ProbeReport, Program, TLS_CA, TLS_CERT, TLS_KEY};
use coffer_wire::guest::v1::{EngineHealth, EngineState, Spec};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::agent::Shared;
use crate::agent::file::{self, Durable};
use crate::agent::last_words;
use crate::agent::store::Memory;
use crate::error::{GuestError, Result};
use crate::init::Process;
use crate::limits;
use crate::log;

/// A restart that was asked for; answered when the new process was started.
pub(crate) type Restart = oneshot::Sender<Result<()>>;

/// SIGKILL.
const SIGKILL: i32 = 9;

/// What the loop knows beside the spec and the status.
struct Loop {
    shared: Arc<Shared>,
    process: watch::Receiver<Process>,
    /// Generation and version that were prepared.
    prepared: Option<(u64, u64)>,
    /// Whether a process was there: if it is gone, it ended by itself.
    was_running: bool,
    /// Whether the running process has answered a probe.
    has_answered: bool,
    misses: u32,
    started_at: Instant,
    crashes: VecDeque<Instant>,
    logs_trimmed_at: Option<Instant>,
    /// Identity that was applied and is not yet remembered.
    applied_identity: Option<String>,
    /// What is free in the volume; unit: bytes.
    space: u64,
    /// The same when an engine was left alone whose volume was full.
    left_alone_with: Option<u64>,
}

/// Runs for as long as the agent does.
pub(crate) async fn run(shared: Arc<Shared>, mut restarts: mpsc::Receiver<Restart>) {
    let mut spec_changed = shared.spec_changed.subscribe();
    let mut process = shared.keeper.watch();
    let mut state = Loop {
        process: shared.keeper.watch(),
        prepared: None,
        was_running: false,
        has_answered: false,
        misses: 0,
        started_at: Instant::now(),
        crashes: VecDeque::new(),
        logs_trimmed_at: None,
        applied_identity: None,
        space: 0,
        left_alone_with: None,
        shared: Arc::clone(&shared),
    };
    loop {
        spec_changed.mark_unchanged();
        process.mark_unchanged();
        let pause = state.turn().await;
        // Every branch only wakes the loop; what it is woken for is read anew.
        tokio::select! {
            _ = spec_changed.changed() => {}
            changed = process.changed() => {
                if changed.is_err() {
                    // Init is gone, and with it everything; the sandbox ends.
                    return;
                }
            }
            () = shared.probe_now.notified() => {}
            Some(restart) = restarts.recv() => {
                let done = state.restart().await;
                // A caller that waits no more does not mind.
                restart.send(done).ok();
            }
            () = tokio::time::sleep(pause) => {}
        }
        shared.streams.sweep();
    }
}

impl Loop {
    /// Does the next thing; returns how long to wait for the one after.
    async fn turn(&mut self) -> Duration {
        self.measure_volume();
        let Some(spec) = self.shared.store.look(|memory| memory.spec.clone()).await else {
            return limits::PROBE_EVERY;
        };
        self.shared.status.change(|status| {
            status.generation = spec.generation;
            status.spec_version = spec.version;
            status.role = spec.role;
        });
        self.see_process();
        match spec.engine_state {
            EngineState::Stopped => self.keep_stopped(&spec).await,
            EngineState::Running => self.keep_running(&spec).await,
        }
    }

    fn see_process(&mut self) {
        let process = self.process.borrow().clone();
        self.shared.status.change(|status| {
            status.engine_starts = process.starts;
            status.engine_process = process.running;
        });
    }

    async fn keep_stopped(&mut self, spec: &Spec) -> Duration {
        if let Err(error) = self.stop_engine().await {
            self.tell(EngineHealth::Blocked, format!("stop the engine: {error}"));
            return limits::RETRY_EVERY;
        }
        self.see_process();
        self.shared.status.change(|status| {
            status.health = EngineHealth::Stopped;
            status.message.clear();
            status.position = None;
            status.applied_version = spec.version;
        });
        limits::PROBE_EVERY
    }

    async fn keep_running(&mut self, spec: &Spec) -> Duration {
        let version = (spec.generation, spec.version);
        if self.prepared != Some(version) {
            let prepare = tokio::time::timeout(limits::PREPARE_MAX, self.prepare(spec)).await;
            let late = |_| GuestError::Init {
                why: "it takes too long".to_owned(),
            };
            if let Err(error) = prepare.map_err(late).and_then(|done| done) {
                log::warn(format_args!("prepare the engine: {error}"));
                self.tell(
                    EngineHealth::Starting,
                    format!("prepare the engine: {error}"),
                );
                return limits::RETRY_EVERY;
            }
            self.prepared = Some(version);
            self.crashes.clear();
        }
        if self.process.borrow().running.is_some() {
            self.was_running = true;
            return self.probe(spec).await;
        }
        if self.was_running {
            self.was_running = false;
            self.note_crash();
        }
        if self.crashes.len() > limits::CRASH_RESTARTS_MAX {
            if !has_space_again(self.left_alone_with, self.space) {
                return limits::PROBE_EVERY;
            }
            log::warn(format_args!("the volume has space again"));
            self.crashes.clear();
        }
        self.start_engine().await
    }

    fn note_crash(&mut self) {
        let now = Instant::now();
        self.crashes.push_back(now);
        while self
            .crashes
            .front()
            .is_some_and(|at| now - *at > limits::CRASH_WINDOW)
        {
            self.crashes.pop_front();
        }
        let process = self.process.borrow().clone();
        let mut message = format!("the engine {}", process.last_end);
        if let Some(said) = last_words::of(&process.output) {
            message.push_str(&format!("; it said: {said}"));
        }
        if self.crashes.len() > limits::CRASH_RESTARTS_MAX {
            self.left_alone_with = is_full(self.space).then_some(self.space);
            message.push_str("; it was restarted twice within ten minutes and is left alone now: ");
            message.push_str(match self.left_alone_with {
                Some(_) => "its volume is full, and with space it is started again",
                None => "mend the cause and restart the instance",
            });
        }
        log::warn(format_args!("{message}"));
        self.tell(EngineHealth::Crashed, message);
    }

    async fn start_engine(&mut self) -> Duration {
        if self.crashes.is_empty() {
            self.tell(EngineHealth::Starting, String::new());
        } else {
            // What it said may be what it has no space for.
            self.trim_logs().await;
            self.clear_locks().await;
            if let Some(words) = self.shared.runtime.mend(self.shared.host.as_ref()) {
                self.use_tool("mend the engine's files", words).await;
            }
        }
        let shared = Arc::clone(&self.shared);
        let program = shared.runtime.launch(shared.host.as_ref());
        match shared
            .keeper
            .start(program, shared.runtime.stop_plan())
            .await
        {
            Ok(()) => {
                self.was_running = true;
                self.has_answered = false;
                self.misses = 0;
                self.started_at = Instant::now();
                self.see_process();
                // A message about the crash before stays until the engine answers.
                shared
                    .status
                    .change(|status| status.health = EngineHealth::Starting);
                limits::PROBE_STARTING_EVERY
            }
            Err(error) => {
                log::warn(format_args!("start the engine: {error}"));
                self.tell(EngineHealth::Crashed, format!("start the engine: {error}"));
                limits::RETRY_EVERY
            }
        }
    }

    /// Removes lock files that say nothing, which the engine would take for another one's. Nothing
    /// of the engine runs.
    async fn clear_locks(&self) {
        let host = self.shared.host.as_ref();
        let files = self.shared.runtime.lock_files(host);
        if files.is_empty() {
            return;
        }
        let mut words = vec!["clear-locks".to_owned()];
        words.extend(files.iter().map(|file| file.display().to_string()));
        self.use_tool("clear the engine's locks", words).await;
    }

    /// Runs the tool under the engine's user. Where it fails, the engine says itself what it meets.
    async fn use_tool(&self, what: &str, words: Vec<String>) {
        let host = self.shared.host.as_ref();
        let first = std::iter::once("engine-tool".to_owned());
        let program = Program {
            path: host.tool(),
            args: first.chain(words).collect(),
            env: Vec::new(),
            stdin: Vec::new(),
        };
        match host.run(program).await {
            Ok(ended) if ended.code == Some(0) => {}
            Ok(ended) => log::warn(format_args!("{what}: {}", ended.output)),
            Err(error) => log::warn(format_args!("{what}: {error}")),
        }
    }

    async fn probe(&mut self, spec: &Spec) -> Duration {
        let shared = Arc::clone(&self.shared);
        let probe = shared.runtime.probe(shared.host.as_ref());
        match tokio::time::timeout(limits::PROBE_MAX, probe).await {
            Ok(Ok(report)) => {
                self.answered(spec, report).await;
                self.keep_house(true).await;
                limits::PROBE_EVERY
            }
            Ok(Err(error)) => {
                self.keep_house(false).await;
                self.not_answered(&error.to_string())
            }
            Err(_) => {
                self.keep_house(false).await;
                self.not_answered("no answer to a probe within 3 s")
            }
        }
    }

    async fn answered(&mut self, spec: &Spec, report: ProbeReport) {
        self.has_answered = true;
        self.misses = 0;
        self.shared.status.change(|status| {
            status.health = EngineHealth::Healthy;
            status.message.clear();
            status.applied_version = spec.version;
            status.position = report.position;
            status.engine_version = Some(report.version);
        });
        let (mark, identity) = (report.inventory_mark, self.applied_identity.take());
        let note = |memory: &mut Memory| -> std::result::Result<u64, GuestError> {
            if memory.inventory_mark != mark {
                memory.inventory_mark = mark;
                memory.inventory_counter += 1;
            }
            if identity.is_some() {
                memory.identity.clone_from(&identity);
            }
            Ok(memory.inventory_counter)
        };
        match self.shared.store.change(note).await {
            Ok(Ok(counter)) => {
                self.shared
                    .status
                    .change(|status| status.inventory_counter = counter);
            }
            // A full volume: the next answer tries again.
            Ok(Err(_)) | Err(_) => self.applied_identity = identity,
        }
    }

    fn not_answered(&mut self, why: &str) -> Duration {
        if !self.has_answered {
            self.shared
                .status
                .change(|status| status.health = EngineHealth::Starting);
            let is_long = self.started_at.elapsed() > Duration::from_secs(10);
            if is_long {
                self.tell(
                    EngineHealth::Starting,
                    format!("the engine does not answer yet: {why}"),
                );
            }
            return if is_long {
                limits::PROBE_EVERY
            } else {
                limits::PROBE_STARTING_EVERY
            };
        }
        self.misses += 1;
        if self.misses >= limits::PROBE_MISSES_MAX {
            self.tell(
                EngineHealth::Blocked,
                format!("the engine does not answer: {why}"),
            );
        }
        limits::PROBE_EVERY
    }

    /// Identity, configuration and TLS as the spec says; may be repeated.
    async fn prepare(&mut self, spec: &Spec) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let known = match &self.applied_identity {
            Some(applied) => Some(applied.clone()),
            None => shared.store.look(|memory| memory.identity.clone()).await,
        };
        if known.as_deref() != Some(spec.identity.as_str()) {
            self.stop_engine().await?;
            shared
                .runtime
                .personalise(shared.host.as_ref(), &spec.identity)
                .await?;
            // Remembered with the first answer: a start does not wait for the disk, and the
            // same identity again changes nothing.
            self.applied_identity = Some(spec.identity.clone());
        }
        for config in &spec.config {
            let path = shared.host.layout().config_dir.join(&config.name);
            if file::read_if_there(&path).as_deref() != Some(config.content.as_str()) {
                file::replace(&path, config.content.as_bytes(), 0o644, Durable::Nothing)?;
            }
        }
        self.install_tls(spec).await?;
        if self.process.borrow().running.is_some() {
            let reload = shared.runtime.reload(shared.host.as_ref());
            let reloaded = tokio::time::timeout(limits::RELOAD_MAX, reload).await;
            reloaded.map_err(|_| GuestError::Init {
                why: "the engine does not read its configuration again".to_owned(),
            })??;
        }
        Ok(())
    }

    async fn install_tls(&self, spec: &Spec) -> Result<()> {
        let shared = &self.shared;
        let own = shared.identity.engine_self_signed();
        let cert = spec.tls.as_ref().map_or(own, |tls| tls.cert_pem.as_str());
        let ca = spec.tls.as_ref().map_or(own, |tls| tls.ca_pem.as_str());
        shared
            .keeper
            .install(TLS_KEY, &shared.identity.engine_key_pem())
            .await?;
        shared.keeper.install(TLS_CERT, cert).await?;
        shared.keeper.install(TLS_CA, ca).await
    }

    async fn restart(&mut self) -> Result<()> {
        let spec = self.shared.store.look(|memory| memory.spec.clone()).await;
        if !spec.is_some_and(|spec| spec.engine_state == EngineState::Running) {
            return Err(GuestError::Init {
                why: "the spec says that it is stopped".to_owned(),
            });
        }
        self.stop_engine().await?;
        self.see_process();
        self.crashes.clear();
        self.prepared = None;
        self.tell(EngineHealth::Starting, String::new());
        Ok(())
    }

    /// Stops the engine: cleanly within its grace, then by force. One that is starting may lose the
    /// signal (MariaDB does, and serves until it gets another), and has nothing of anybody's to
    /// bring to an end.
    async fn stop_engine(&mut self) -> Result<()> {
        self.was_running = false;
        let plan = self.shared.runtime.stop_plan();
        let grace = Duration::from_millis(plan.grace_ms);
        let grace = match self.process.borrow().running.is_none() || self.has_served().await {
            true => grace,
            false => grace.min(limits::STOP_STARTING_MAX),
        };
        let tries = [(plan.signal, grace), (SIGKILL, limits::RETRY_EVERY)];
        for (signal, grace) in tries {
            if self.process.borrow().running.is_none() {
                return Ok(());
            }
            if let Err(error) = self.shared.keeper.signal(signal).await
                && self.process.borrow().running.is_some()
            {
                return Err(error);
            }
            let ended = self.process.wait_for(|process| process.running.is_none());
            // What outlives its grace meets the next signal.
            tokio::time::timeout(grace, ended)
                .await
                .map(|_| ())
                .unwrap_or_default();
        }
        match self.process.borrow().running {
            None => Ok(()),
            Some(_) => Err(GuestError::Init {
                why: "the engine cannot be killed".to_owned(),
            }),
        }
    }

    /// Whether the running process has answered, or does now: an agent that was just started has
    /// not asked it before.
    async fn has_served(&mut self) -> bool {
        if !self.has_answered {
            let probe = self.shared.runtime.probe(self.shared.host.as_ref());
            let answer = tokio::time::timeout(limits::PROBE_MAX, probe).await;
            self.has_answered = answer.is_ok_and(|answer| answer.is_ok());
        }
        self.has_answered
    }

    fn measure_volume(&mut self) {
        let data_dir = &self.shared.host.layout().data_dir;
        // A volume that is not there shows as one of no size.
        if let Ok(found) = nix::sys::statvfs::statvfs(data_dir) {
            let block = found.fragment_size();
            self.space = found.blocks_available() * block;
            self.shared.status.change(|status| {
                status.volume_total_bytes = found.blocks() * block;
                status.volume_used_bytes =
                    found.blocks().saturating_sub(found.blocks_free()) * block;
            });
        }
    }

    /// Keeps the engine's logs within their bound, now and then; an engine that answers does its
    /// part.
    async fn keep_house(&mut self, is_answering: bool) {
        if self
            .logs_trimmed_at
            .is_some_and(|at| at.elapsed() < limits::LOG_TRIM_EVERY)
        {
            return;
        }
        self.logs_trimmed_at = Some(Instant::now());
        self.trim_logs().await;
        if !is_answering {
            return;
        }
        let house = self.shared.runtime.keep_house(self.shared.host.as_ref());
        match tokio::time::timeout(limits::HOUSE_MAX, house).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn(format_args!("keep the engine's house: {error}")),
            Err(_) => log::warn(format_args!("keep the engine's house: it takes too long")),
        }
    }

    async fn trim_logs(&self) {
        let host = &self.shared.host;
        let Ok(entries) = std::fs::read_dir(&host.layout().log_dir) else {
            return;
        };
        let total: u64 = entries
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .sum();
        if total <= limits::LOG_BYTES_MAX {
            return;
        }
        let args = ["engine-tool", "trim-logs"].map(str::to_owned).into_iter();
        let values = [
            host.layout().log_dir.display().to_string(),
            limits::LOG_BYTES_MAX.to_string(),
        ];
        let renaming = self.shared.runtime.reopens_logs();
        let renaming = renaming.then(|| "renaming".to_owned());
        let program = Program {
            path: host.tool(),
            args: args.chain(values).chain(renaming).collect(),
            env: Vec::new(),
            stdin: Vec::new(),
        };
        if let Err(error) = host.run(program).await {
            log::warn(format_args!("remove old logs: {error}"));
        }
    }

    fn tell(&self, health: EngineHealth, message: String) {
        self.shared.status.change(|status| {
            status.health = health;
            status.message = message;
        });
    }
}

/// Whether an engine may have ended because its volume has no more than this.
fn is_full(space: u64) -> bool {
    space < limits::FULL_BYTES
}

/// Whether an engine that was left alone with a full volume may be tried again.
fn has_space_again(left_alone_with: Option<u64>, space: u64) -> bool {
    left_alone_with.is_some_and(|was| space >= was + limits::SPACE_AGAIN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_tried_again_when_its_full_volume_has_space() {
        let mib = |n: u64| n << 20;
        assert!(is_full(mib(0)) && is_full(mib(40)) && !is_full(mib(500)));
        let full = Some(mib(3));
        assert!(!has_space_again(full, mib(3)));
        assert!(!has_space_again(full, mib(10)));
        assert!(has_space_again(full, mib(40)));
        assert!(
            !has_space_again(None, mib(1000)),
            "space was not what it lacked"
        );
    }
}

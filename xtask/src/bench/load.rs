//! A light load on many instances at once: each has a client with a connection of its own, which
//! asks, is answered, and waits a little.
//!
//! Clients are asked through pipes, so that a time holds two ways between processes beside what the
//! server takes; that is the same whatever goes on meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::Client;
use super::statistics::percentile;
use crate::process::{Dialogue, Program, Stopwatch, pause, wait_for};

/// Time between an answer and the next question.
const EVERY: Duration = Duration::from_millis(100);
/// LIMIT: longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A load; ended when dropped.
#[derive(Debug)]
pub struct Load {
    askers: Vec<Asker>,
    is_over: Arc<AtomicBool>,
}

/// A thread with a client.
#[derive(Debug)]
struct Asker {
    /// Whom it asks.
    name: String,
    pid: u32,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What a client has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Answers so far.
    answers: u64,
    /// Whether times are wanted just now.
    is_measured: bool,
    /// Times that were.
    seconds: Vec<f64>,
    /// Why it asks no more.
    failed: Option<String>,
}

impl Load {
    /// Begins; each client is that of an instance, which is named.
    pub fn start(clients: Vec<(String, Client, Dialogue)>) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = u32::try_from(clients.len().max(1)).context("count clients")?;
        let mut askers = Vec::new();
        for ((name, client, dialogue), number) in clients.into_iter().zip(0_u32..) {
            let (seen, over) = (Arc::default(), Arc::clone(&is_over));
            let pid = dialogue.pid();
            let begin = EVERY * number / count;
            let thread = {
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    // They do not ask all at once.
                    pause(begin);
                    ask_on(&client, dialogue, &seen, &over);
                })
            };
            askers.push(Asker {
                name,
                pid,
                seen,
                thread: Some(thread),
            });
        }
        let made = Self { askers, is_over };
        made.settle()?;
        Ok(made)
    }

    /// Does the work again and again, for as long at least; gives the 99th percentile of the times
    /// to an answer meanwhile. It is an error if a question was not answered.
    pub fn during(&self, time: Duration, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        self.measure(true);
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            work()?;
        }
        self.settle()?;
        let seconds = self.measure(false);
        if seconds.is_empty() {
            bail!("nobody was answered");
        }
        Ok(percentile(&seconds, 0.99))
    }

    /// The 99th percentile while nothing else goes on.
    pub fn alone(&self, time: Duration) -> Result<f64> {
        self.during(time, || {
            pause(EVERY);
            Ok(())
        })
    }

    /// Begins or ends to note times; gives those that were noted.
    fn measure(&self, is_measured: bool) -> Vec<f64> {
        let note = |asker: &Asker| {
            let mut seen = asker.seen();
            seen.is_measured = is_measured;
            std::mem::take(&mut seen.seconds)
        };
        self.askers.iter().flat_map(note).collect()
    }

    /// Waits until whoever was asked has answered, and each client once more.
    fn settle(&self) -> Result<()> {
        let before: Vec<u64> = self.askers.iter().map(|one| one.seen().answers).collect();
        for (asker, before) in self.askers.iter().zip(before) {
            // Two more: the first of them may have been asked before.
            let is_answered = || {
                let seen = asker.seen();
                (seen.failed.is_some() || seen.answers > before + 1).then_some(())
            };
            wait_for("an answer", ANSWER_MAX, is_answered).with_context(|| asker.name.clone())?;
            if let Some(why) = &asker.seen().failed {
                bail!("{}: {why}", asker.name);
            }
        }
        Ok(())
    }
}

impl Asker {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for asker in &mut self.askers {
            let Some(thread) = asker.thread.take() else {
                continue;
            };
            if !thread.is_finished() {
                // A client that hangs would keep it from seeing that.
                Program::new("kill", &["-KILL", &asker.pid.to_string()]).succeeds();
            }
            // A bug in there was told by the thread itself.
            let _ = thread.join();
        }
    }
}

fn ask_on(client: &Client, mut dialogue: Dialogue, seen: &Mutex<Seen>, is_over: &AtomicBool) {
    for number in 1_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let watch = Stopwatch::start();
        let answer = dialogue.ask(&client.ask_for(number));
        let seconds = watch.elapsed().as_secs_f64();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) if answer.trim() == number.to_string() => {
                seen.answers += 1;
                if seen.is_measured {
                    seen.seconds.push(seconds);
                }
            }
            Ok(other) => seen.failed = Some(format!("answered '{other}', not {number}")),
            Err(error) => seen.failed = Some(format!("{error:#}")),
        }
        let is_failed = seen.failed.is_some();
        drop(seen);
        if is_failed {
            return;
        }
        pause(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::bench::engine::REDIS;

    /// Answers `ECHO n` with n, so often.
    fn client(answers: u32) -> (String, Client, Dialogue) {
        let dir = tempfile::tempdir().unwrap();
        let script =
            format!("for n in $(seq {answers}); do read -r _ number || exit; echo $number; done");
        let dialogue = Program::new("sh", &["-c", &script])
            .talk(&dir.path().join("log"))
            .unwrap();
        let client = Client {
            engine: &REDIS,
            tree: PathBuf::new(),
        };
        ("one".to_owned(), client, dialogue)
    }

    #[test]
    fn every_answer_is_timed_and_a_missing_one_is_told() {
        let load = Load::start(vec![client(1_000), client(1_000)]).unwrap();
        let seconds = load.alone(Duration::from_millis(300)).unwrap();
        assert!(seconds > 0.0 && seconds < 30.0, "{seconds}");
        drop(load);
        let load = Load::start(vec![client(1_000), client(4)]).unwrap();
        let error = load.alone(Duration::from_millis(800)).unwrap_err();
        assert!(format!("{error:#}").contains("one"), "{error:#}");
    }
}

//! Two loads that take turns: while the clients of one go on, those of the other are held.
//!
//! What else a shared machine does changes within tenths of a second, and by more than what is to
//! be told apart. Turns much shorter than that meet the same machine. A load is stopped and let go
//! on by signals; what it had asked for by then is answered in the other's turn, on both sides
//! alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::row::Pair;
use crate::process::{Program, Stopwatch, pause, tail};

/// How long a turn takes.
pub const TURN: Duration = Duration::from_millis(10);
/// The same in words.
pub const WORDS: &str = "clients of both sides by turns of 10 ms";
/// LIMIT: longest time that two loads take together.
const LIMIT: Duration = Duration::from_secs(300);

/// What a load has done.
#[derive(Debug)]
struct Done {
    /// What it printed.
    printed: String,
    /// The time that its turns took.
    seconds: f64,
}

/// A load that is under way; killed when dropped.
#[derive(Debug)]
struct Load {
    child: Child,
    log: PathBuf,
    turns: Duration,
    ended: Option<ExitStatus>,
}

/// Runs ours and what it is compared with; `count` finds in what a load printed how much it did.
pub fn pair(
    ours: Program,
    reference: Program,
    is_ours_first: bool,
    dir: &Path,
    count: impl Fn(&str) -> Result<f64>,
) -> Result<Pair> {
    let rate = |done: &Done| Ok(count(&done.printed)? / done.seconds);
    let [ours, reference] = match is_ours_first {
        true => take_turns(ours, reference, dir)?,
        false => {
            let [reference, ours] = take_turns(reference, ours, dir)?;
            [ours, reference]
        }
    };
    let reference = Some(rate(&reference)?);
    rate(&ours).map(|ours| Pair { ours, reference })
}

/// Runs two loads to their ends; the first begins. Their output goes to files in the directory.
fn take_turns(first: Program, second: Program, dir: &Path) -> Result<[Done; 2]> {
    let mut loads = [
        Load::start(first, dir.join("load-1.log"))?,
        Load::start(second, dir.join("load-2.log"))?,
    ];
    for load in &loads {
        load.signal(Signal::SIGSTOP)?;
    }
    let watch = Stopwatch::start();
    while loads.iter().any(|load| load.ended.is_none()) {
        ensure!(watch.elapsed() < LIMIT, "two loads did not come to an end");
        for load in &mut loads {
            load.take_turn()?;
        }
    }
    let [first, second] = loads;
    Ok([first.done()?, second.done()?])
}

impl Load {
    fn start(program: Program, log: PathBuf) -> Result<Self> {
        Ok(Self {
            child: program.start(&log)?,
            log,
            turns: Duration::ZERO,
            ended: None,
        })
    }

    fn take_turn(&mut self) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let watch = Stopwatch::start();
        self.signal(Signal::SIGCONT)?;
        pause(TURN);
        self.signal(Signal::SIGSTOP)?;
        self.turns += watch.elapsed();
        self.ended = self.child.try_wait().context("look at a load")?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // It is not waited for yet, so that the number is no other's.
        let pid = i32::try_from(self.child.id()).context("read a process id")?;
        kill(Pid::from_raw(pid), signal).context("signal a load")
    }

    fn done(&self) -> Result<Done> {
        if !self.ended.is_some_and(|status| status.success()) {
            bail!("a load failed; {}", tail(&self.log));
        }
        let printed = fs::read_to_string(&self.log);
        Ok(Done {
            printed: printed.with_context(|| format!("read {}", self.log.display()))?,
            seconds: self.turns.as_secs_f64(),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a failure; one that has ended is not there.
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts for as long as it is let, and prints how far it came.
    fn count(seconds: &str) -> Program {
        let script = format!(
            "import time\nend = time.monotonic() + {seconds}\nn = 0\n\
             while time.monotonic() < end:\n    n += 1\nprint(n)"
        );
        Program::new("python3", &["-c", &script])
    }

    #[test]
    fn both_have_as_much_time_and_never_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Stopwatch::start();
        let [first, second] = take_turns(count("0.6"), count("0.6"), dir.path()).unwrap();
        let whole = watch.elapsed().as_secs_f64();
        assert!(first.seconds + second.seconds <= whole, "{whole}");
        for done in [&first, &second] {
            assert!(done.seconds > 0.2, "{done:?}");
            assert!(done.printed.trim().parse::<u64>().unwrap() > 0);
        }
    }

    #[test]
    fn a_load_that_fails_is_told_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let bad = Program::new("sh", &["-c", "echo no such table >&2; exit 3"]);
        let error = take_turns(count("0.1"), bad, dir.path()).unwrap_err();
        assert!(error.to_string().contains("no such table"), "{error:#}");
    }
}

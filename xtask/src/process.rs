//! Programs and time: the one place of this crate that starts processes and looks at the clock.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of a log shown when its program ended badly.
const TAIL_LINES: usize = 60;
/// LIMIT: panics told beside them, and lines of each: where it was, and the beginning of why.
const PANICS_MAX: usize = 5;
const PANIC_LINES: usize = 4;

/// A program to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    name: String,
}

impl Program {
    /// A program with its arguments.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the crate's process module"
    )]
    pub fn new<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Self {
        let mut command = Command::new(&program);
        command.args(arguments);
        let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
        let name = [program.as_ref().to_string_lossy()]
            .into_iter()
            .chain(words);
        Self {
            command,
            name: name.collect::<Vec<_>>().join(" "),
        }
    }

    /// Runs in this directory.
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs with this variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs with the programs of this directory before others of the same name.
    pub fn with_first_in_path(mut self, dir: &Path) -> Self {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let all = [dir.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&rest));
        if let Ok(path) = std::env::join_paths(all) {
            self.command.env("PATH", path);
        }
        self
    }

    /// Runs with our own input and output; a bad end is an error.
    pub fn run(mut self) -> Result<()> {
        let status = self
            .command
            .status()
            .with_context(|| format!("start {}", self.name))?;
        ended_well(status, &self.name)
    }

    /// Runs and gives what it printed; a bad end is an error with what it complained of.
    pub fn output(mut self) -> Result<String> {
        let output = self.command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("start {}", self.name))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} ended with {}: {}",
                self.name,
                output.status,
                words.trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("read {}", self.name))
    }

    /// Whether it runs and ends well; says nothing.
    pub fn succeeds(mut self) -> bool {
        let quiet = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// Runs with its output in a log file; on a bad end the error holds the end of it.
    pub fn logged(mut self, log: &Path) -> Result<()> {
        let (output, errors) = log_files(log)?;
        let quiet = self
            .command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let status = quiet
            .status()
            .with_context(|| format!("start {}", self.name))?;
        ended_well(status, &self.name).with_context(|| tail(log))
    }

    /// Runs with its output in one file and its complaints in a log, whose end is in the error.
    pub fn logged_apart(mut self, output: &Path, log: &Path) -> Result<()> {
        let (errors, _) = log_files(log)?;
        let (output, _) = log_files(output)?;
        let quiet = self
            .command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let status = quiet
            .status()
            .with_context(|| format!("start {}", self.name))?;
        ended_well(status, &self.name).with_context(|| tail(log))
    }

    /// Starts it with its output in a log file, in a session of its own: an interrupt on the
    /// terminal does not reach it, and where the kernel shares processors out by session it is no
    /// part of ours.
    pub fn start(self, log: &Path) -> Result<Child> {
        let (output, errors) = log_files(log)?;
        let mut apart = self.in_session();
        let started = apart
            .command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn();
        started.with_context(|| format!("start {}", apart.name))
    }

    /// The same program in a session of its own, with the same process id as without.
    pub fn in_session(self) -> Self {
        let words: Vec<&OsStr> = [self.command.get_program()]
            .into_iter()
            .chain(self.command.get_args())
            .collect();
        let mut apart = Self::new("setsid", &words);
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => apart.command.env(name, value),
                None => apart.command.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            apart.command.current_dir(dir);
        }
        apart.name = self.name;
        apart
    }
}

/// A program that is asked line by line and answers each with a line; killed when dropped.
#[derive(Debug)]
pub struct Dialogue {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Program {
    /// Starts it to be asked; its complaints go to a log.
    pub fn talk(mut self, log: &Path) -> Result<Dialogue> {
        let (errors, _) = log_files(log)?;
        let piped = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = piped
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let questions = child.stdin.take().context("open its input")?;
        let answers = child.stdout.take().context("open its output")?;
        Ok(Dialogue {
            child,
            questions,
            answers: BufReader::new(answers).lines(),
            log: log.to_owned(),
        })
    }
}

impl Dialogue {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        let asked = self.questions.write_all(format!("{question}\n").as_bytes());
        asked.with_context(|| tail(&self.log))?;
        match self.answers.next() {
            Some(answer) => answer.context("read an answer"),
            None => bail!("it ended; {}", tail(&self.log)),
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log file, for people, and the panics that stand before it: a backtrace can be
/// longer than the end is.
pub fn tail(log: &Path) -> String {
    let Ok(file) = File::open(log) else {
        return format!("{} is not there", log.display());
    };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    let (before, end) = lines.split_at(skipped);
    let mut told = vec![format!("the end of {}:", log.display())];
    told.extend(end.iter().cloned());
    let panics = before.iter().enumerate();
    let panics = panics.filter(|(_, line)| line.contains("panicked at"));
    for (number, _) in panics.take(PANICS_MAX) {
        told.push(format!("before it, in line {}:", number + 1));
        told.extend(before.iter().skip(number).take(PANIC_LINES).cloned());
    }
    told.join("\n")
}

/// A stretch of time being measured.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the crate's clock module"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits until `is_done` answers with something; an error when `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, is_done: impl Fn() -> Option<T>) -> Result<T> {
    wait_closely(what, limit, Duration::from_millis(50), || Ok(is_done()))
}

/// As [`wait_for`], looking as often as told, with a look that may fail for good.
pub fn wait_closely<T>(
    what: &str,
    limit: Duration,
    pace: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if watch.elapsed() > limit {
            bail!("{what} did not come within {} s", limit.as_secs());
        }
        pause(pace);
    }
}

/// Does nothing for so long.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes' deeds are waited for and paced here"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks a process to stop and waits until it has.
pub fn stop(child: &mut Child, limit: Duration) -> Result<()> {
    let pid = child.id().to_string();
    if child.try_wait().context("look at a process")?.is_some() {
        return Ok(());
    }
    Program::new("kill", &["-TERM", &pid]).run()?;
    let cell = std::cell::RefCell::new(child);
    let gone = || cell.borrow_mut().try_wait().ok().flatten();
    wait_for("the end of a process", limit, gone).map(|_| ())
}

fn log_files(log: &Path) -> Result<(File, File)> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
    let again = file.try_clone().context("share the log file")?;
    Ok((file, again))
}

fn ended_well(status: ExitStatus, name: &str) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => bail!("{name} ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_however_long_its_backtrace_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("it.log");
        let why = "thread 'main' panicked at src/lib.rs:1:\nthe clean stop failed\n";
        let trace = "  12: core::ops::function\n".repeat(3 * TAIL_LINES);
        std::fs::write(&log, format!("running 1 test\n{why}{trace}the last line\n")).unwrap();
        let told = tail(&log);
        assert!(told.contains("before it, in line 2:\n"), "{told}");
        assert!(told.contains(why), "{told}");
        assert!(told.contains("the last line"), "{told}");
        assert!(!told.contains("running 1 test"), "{told}");

        std::fs::write(&log, why).unwrap();
        assert_eq!(
            tail(&log),
            format!("the end of {}:\n{}", log.display(), why.trim_end())
        );
    }
}

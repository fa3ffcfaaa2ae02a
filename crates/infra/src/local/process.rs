//! Spawning the host's tools (`ip`, `nft`, `mkfs.xfs`, …) and the sandbox launcher, each bounded.
//!
//! The only file of this crate that spawns processes for the local provider. A child gets an
//! environment of its own, never ours: nothing that stands there can leak into a sandbox.
#![expect(clippy::disallowed_methods, reason = "the one place that spawns")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::clock::{Deadline, wait_until};
use super::failure::{io, rejected, transient};
use super::limits;
use crate::error::Result;

/// Where tools are looked for.
const TOOL_DIRS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// LIMIT: bytes kept of what a tool prints.
const OUTPUT_MAX: u64 = 4 << 20;

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub(super) code: Option<i32>,
    /// Its standard output.
    pub(super) stdout: String,
    /// Its standard error.
    pub(super) stderr: String,
}

/// Runs a tool to its end and returns its output; any exit but 0 is an error with its words.
pub(super) fn run(
    what: &'static str,
    program: &str,
    args: &[&str],
    stdin: Option<&str>,
) -> Result<String> {
    let ended = run_to_end(what, program, args, stdin, limits::TOOL)?;
    good(what, program, ended)
}

fn good(what: &'static str, program: &str, ended: Ended) -> Result<String> {
    if ended.code == Some(0) {
        return Ok(ended.stdout);
    }
    let words = if ended.stderr.trim().is_empty() {
        &ended.stdout
    } else {
        &ended.stderr
    };
    Err(transient(what, format!("{program}: {}", words.trim())))
}

/// The same of a tool that works on a file whose lock the caller has: the tool has it as long as
/// it runs, also when its Coffer is killed, and nobody uses the file beside it.
pub(super) fn run_holding(
    what: &'static str,
    program: &str,
    args: &[&str],
    held: File,
) -> Result<()> {
    let deadline = Deadline::after(limits::TOOL);
    let child = spawn(what, program, args, Stdio::from(held))?;
    good(what, program, wait(what, program, child, deadline)?).map(drop)
}

/// Runs a program to its end, however it ends, killing it when `limit` is over.
pub(super) fn run_to_end(
    what: &'static str,
    program: &str,
    args: &[&str],
    stdin: Option<&str>,
    limit: Duration,
) -> Result<Ended> {
    let deadline = Deadline::after(limit);
    let input = match stdin {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let mut child = spawn(what, program, args, input)?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        let text = text.to_owned();
        thread::spawn(move || pipe.write_all(text.as_bytes()));
    }
    wait(what, program, child, deadline)
}

fn wait(what: &'static str, program: &str, mut child: Child, deadline: Deadline) -> Result<Ended> {
    let out = child.stdout.take().map(read_all);
    let err = child.stderr.take().map(read_all);
    // The pipes end when the process does (or lets go of them), so this is the wait.
    let stdout = out.and_then(|o| o.recv_timeout(deadline.left()).ok());
    let stderr = err.and_then(|e| e.recv_timeout(deadline.left()).ok());
    let code = end(what, &mut child, deadline)?;
    match (stdout, stderr, code) {
        (Some(stdout), Some(stderr), Some(code)) => Ok(Ended {
            code,
            stdout,
            stderr,
        }),
        _ => Err(transient(what, format!("{program} did not end in time"))),
    }
}

/// Whether a tool stands in one of the directories that are searched.
pub(super) fn has_tool(program: &str) -> bool {
    find_tool(program).is_some()
}

fn find_tool(program: &str) -> Option<PathBuf> {
    let mut places = TOOL_DIRS.split(':').map(|dir| Path::new(dir).join(program));
    places.find(|path| path.is_file())
}

fn spawn(what: &'static str, program: &str, args: &[&str], stdin: Stdio) -> Result<Child> {
    // A whole path: a search in the child's own PATH would cost a copy of our page tables.
    let found = find_tool(program).unwrap_or_else(|| program.into());
    let spawned = Command::new(found)
        .args(args)
        .env_clear()
        .env("PATH", TOOL_DIRS)
        .env("LC_ALL", "C")
        // A tool may be a script: what hangs is then a process of its own.
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match spawned {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(rejected(
            what,
            format!("{program} is not installed: see `coffer doctor`"),
        )),
        other => other.map_err(io(what, program)),
    }
}

/// Waits for a child whose pipes ended; kills it when the deadline is over (`None`), with whatever
/// it started: nothing of it may go on beside its repetition.
fn end(what: &'static str, child: &mut Child, deadline: Deadline) -> Result<Option<Option<i32>>> {
    let mut status = None;
    let ended = wait_until(deadline.left(), || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if ended {
        return Ok(status.map(|s| s.code()));
    }
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id is positive"));
    // The child is not waited for yet, so that its group cannot be another's.
    killpg(group, Signal::SIGKILL)
        .map_err(std::io::Error::from)
        .map_err(io(what, "stop a tool that hangs"))?;
    child.wait().map_err(io(what, "stop a tool that hangs"))?;
    let is_over = || killpg(group, None) == Err(Errno::ESRCH);
    if !wait_until(limits::END, is_over) {
        tracing::warn!(what, "what a tool that hung had started does not end");
    }
    Ok(None)
}

fn read_all(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut bounded = pipe.take(OUTPUT_MAX);
        if bounded.read_to_end(&mut bytes).is_ok() {
            // The receiver is gone only when the deadline passed: nobody wants the text then.
            sender
                .send(String::from_utf8_lossy(&bytes).into_owned())
                .ok();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_output_words_and_the_hint_for_a_missing_tool() {
        assert_eq!(run("t", "cat", &[], Some("hello")).unwrap(), "hello");
        let error = run("t", "sh", &["-c", "echo broken >&2; exit 3"], None).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        let error = run("t", "coffer-no-such-tool", &[], None).unwrap_err();
        assert!(error.to_string().contains("not installed"), "{error}");
    }

    #[test]
    fn stops_what_hangs() {
        let limit = Duration::from_millis(50);
        let error = run_to_end("t", "sleep", &["1000"], None, limit).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    /// As `xfs_admin` does: a script whose tool hangs, here because somebody stopped it.
    #[test]
    fn stops_what_a_script_that_hangs_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let (pid, late) = (dir.path().join("pid"), dir.path().join("late"));
        let script = format!(
            "sh -c 'kill -STOP $$; echo late > {}' & echo $! > {}; wait",
            late.display(),
            pid.display()
        );
        let limit = Duration::from_millis(500);
        let error = run_to_end("t", "sh", &["-c", &script], None, limit).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        let pid: i32 = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(
            stat.is_empty() || stat.contains(") Z"),
            "it goes on: {stat}"
        );
        assert!(!late.exists(), "it worked beside its repetition");
    }
}

//! The processes under the engine's user: the engine and programs that run to their end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use coffer_engines::runtime::Layout;
use coffer_wire::guest::v1::Boot;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::boot;
use crate::error::{GuestError, Result};
use crate::init::protocol::ProgramSpec;
use crate::init::spawn::{self, Launch, Started, Stdio};
use crate::limits::{ENGINE_OUTPUT_BYTES, PROGRAM_OUTPUT_BYTES};

/// The end of what a process wrote.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) pipe: Option<File>,
    tail: VecDeque<u8>,
    bytes_max: usize,
    /// Whether something before the tail was left out.
    is_cut: bool,
}

impl Output {
    fn new(pipe: File, bytes_max: usize) -> Result<Self> {
        unblock(&pipe)?;
        Ok(Self {
            pipe: Some(pipe),
            tail: VecDeque::new(),
            bytes_max,
            is_cut: false,
        })
    }

    /// Reads what is there; closes the pipe at its end.
    pub(super) fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut piece = [0_u8; 4096];
        // LIMIT: one turn of init reads this much, so that a flood starves nobody.
        for _ in 0..64 {
            match pipe.read(&mut piece) {
                Ok(0) => {
                    self.pipe = None;
                    return;
                }
                Ok(count) => {
                    self.tail.extend(&piece[..count]);
                    let excess = self.tail.len().saturating_sub(self.bytes_max);
                    self.is_cut |= excess > 0;
                    self.tail.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// What was kept, as text.
    pub(super) fn text(&self) -> String {
        let (head, rest) = self.tail.as_slices();
        let text = String::from_utf8_lossy(&[head, rest].concat()).into_owned();
        if !self.is_cut {
            return text;
        }
        // The rest of a line does not show what the line was.
        let (_, whole) = text.split_once('\n').unwrap_or_default();
        whole.to_owned()
    }
}

/// The engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) started: Started,
    pub(super) output: Output,
    pub(super) stop_signal: Signal,
    pub(super) grace_ms: u64,
}

/// A program that runs to its end.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) pid: Pid,
    pub(super) output: Output,
    pub(super) stdin: Option<File>,
    pending: Vec<u8>,
}

/// What every process under the engine's user is started with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) boot: &'a Boot,
    pub(super) layout: &'a Layout,
    /// The agent's binary, if it is not the root's own.
    pub(super) image: Option<&'a File>,
}

/// Starts the engine.
pub(super) fn start_engine(
    of: Of<'_>,
    program: ProgramSpec,
    (stop_signal, grace_ms): (i32, u64),
) -> Result<Engine> {
    let stop_signal = signal_of(stop_signal)?;
    let (output, child_output) = spawn::pipe("start the engine")?;
    let started = start(of, program, None, child_output)?;
    let output = Output::new(output, ENGINE_OUTPUT_BYTES)?;
    Ok(Engine {
        started,
        output,
        stop_signal,
        grace_ms,
    })
}

/// Starts a program.
pub(super) fn start_run(of: Of<'_>, id: u64, program: ProgramSpec, input: Vec<u8>) -> Result<Run> {
    let (output, child_output) = spawn::pipe("run a program")?;
    let (child_stdin, stdin) = spawn::pipe("run a program")?;
    unblock(&stdin)?;
    let started = start(of, program, Some(child_stdin.into()), child_output)?;
    let output = Output::new(output, PROGRAM_OUTPUT_BYTES)?;
    let mut run = Run {
        id,
        pid: started.pid,
        output,
        stdin: Some(stdin),
        pending: input,
    };
    run.feed();
    Ok(run)
}

fn start(
    of: Of<'_>,
    program: ProgramSpec,
    stdin: Option<OwnedFd>,
    output: File,
) -> Result<Started> {
    refuse_outside_root(&program.path)?;
    // Tools of the agent are of the same binary as it: it knows what they can do.
    let is_own = program.path == boot::GUEST_PATH;
    spawn::start(Launch {
        path: program.path,
        image: of.image.filter(|_| is_own),
        args: program.args,
        env: program.env,
        uid: of.boot.engine_uid,
        confine: Some(of.layout),
        inherited: Vec::new(),
        stdio: Stdio {
            stdin,
            output: Some(output.into()),
        },
    })
}

/// Only what the read-only root holds runs as the engine.
fn refuse_outside_root(path: &str) -> Result<()> {
    let what = format!("find {path}");
    let real = Path::new(path)
        .canonicalize()
        .map_err(GuestError::io(what))?;
    if real.starts_with("/usr") {
        return Ok(());
    }
    Err(GuestError::Init {
        why: format!("{path} is not a program of the root: not below /usr"),
    })
}

impl Run {
    /// Writes what standard input takes; closes it at the end.
    pub(super) fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.pending.is_empty() {
            match stdin.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The program ended or reads no more.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    /// Kills it with everything it started.
    pub(super) fn kill(&self) {
        killpg(self.pid, Signal::SIGKILL).ok();
        kill(self.pid, Signal::SIGKILL).ok();
    }
}

impl Engine {
    /// Kills it and its process group.
    pub(super) fn kill(&self) {
        killpg(self.started.pid, Signal::SIGKILL).ok();
        kill(self.started.pid, Signal::SIGKILL).ok();
    }
}

/// The signal of this number.
pub(super) fn signal_of(number: i32) -> Result<Signal> {
    Signal::try_from(number).map_err(GuestError::sys(format!("signal {number}")))
}

/// How a process ended: exit code if it has one, and words.
pub(super) fn ended(status: WaitStatus) -> Option<(Pid, Option<i32>, String)> {
    match status {
        WaitStatus::Exited(pid, code) => {
            Some((pid, Some(code), format!("exited with code {code}")))
        }
        WaitStatus::Signaled(pid, signal, _) => {
            Some((pid, None, format!("was ended by {}", signal.as_str())))
        }
        _ => None,
    }
}

fn unblock(file: &File) -> Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(|_| ())
        .map_err(GuestError::sys("make a pipe non-blocking"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of what was written, in two pieces, to one who keeps ten bytes.
    fn kept(first: &str, second: &str) -> String {
        let (read, mut write) = spawn::pipe("test").unwrap();
        let mut output = Output::new(read, 10).unwrap();
        write.write_all(first.as_bytes()).unwrap();
        output.read();
        write.write_all(second.as_bytes()).unwrap();
        drop(write);
        output.read();
        assert!(output.pipe.is_none());
        output.text()
    }

    #[test]
    fn what_is_kept_begins_with_a_whole_line() {
        assert_eq!(kept("one\ntwo\n", "3\n"), "one\ntwo\n3\n");
        assert_eq!(kept("a\nSELECT 'secret'\n", "end\n"), "end\n");
        assert_eq!(
            kept("a long line of secrets\n", "done\nend\n"),
            "done\nend\n"
        );
        assert_eq!(kept("one\n", "end \u{1F980}\n"), "end \u{1F980}\n");
        assert_eq!(kept("SELECT 'secret'", " without an end"), "");
    }
}

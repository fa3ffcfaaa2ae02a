//! The sandbox launcher: a program of its own, because a process with many threads must not fork.
//!
//! `coffer sandbox-launch SPEC` calls [`main`] before it starts any thread. It joins the control
//! groups and the network namespace, forks the sandbox's first process into namespaces of its own,
//! writes that process's pid down before it lets it go on, and ends when the guest's program runs
//! (or, for a template, when it has ended). The sandbox belongs to nobody then: it outlives Coffer.
//! Without root all of that happens inside the user namespace of `world.rs`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};
use serde::{Deserialize, Serialize};

use super::failure::{errno, io, rejected, transient};
use super::jail;
use super::record::{Launched, boot_id, read_json, start_time, write_json_for_this_boot};
use super::sys::{Side, fork_single_threaded, redirect};
use crate::error::Result;

/// Exit code of a launcher that waited for a sandbox that a signal ended.
pub(super) const ENDED_BY_SIGNAL: u8 = 124;

/// What the launcher is told, as a JSON file. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Namespace to run in; with `None` one of its own without any link.
    pub netns: Option<PathBuf>,
    /// Control groups to join.
    pub groups: Vec<PathBuf>,
    /// Read-only trees, the engine's own first.
    pub roots: Vec<PathBuf>,
    /// File of the data volume.
    pub volume: PathBuf,
    /// The guest's program on the host.
    pub guest_binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Small files that the sandbox gets, by their path in it.
    pub files: Vec<(String, String)>,
    /// User id of the agent; the same as the engine's where Coffer runs without root.
    pub agent_uid: u32,
    /// User id of the engine.
    pub engine_uid: u32,
    /// Host name inside.
    pub host_name: String,
    /// Memory limit; unit: MiB. Sizes the sandbox's own tmpfs.
    pub memory_mib: u32,
    /// An empty directory on which the sandbox's root is put together, seen by nobody else.
    pub mount_point: PathBuf,
    /// File that takes what the guest prints.
    pub console: PathBuf,
    /// File that says which process was launched, and its lock beside it.
    pub launched: PathBuf,
    /// Whether to wait for the guest's program and end with its exit code.
    pub is_waiting: bool,
}

impl LaunchSpec {
    /// The one user id that everything in the sandbox has, where it has only one.
    pub(super) fn only_uid(&self) -> Option<u32> {
        (self.agent_uid == self.engine_uid).then_some(self.engine_uid)
    }
}

/// Runs the launcher; the process must have one thread. Prints a [`Launched`] as JSON, or one line
/// that says what is wrong.
pub fn main(spec: &Path) -> ExitCode {
    match launch(spec) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn launch(path: &Path) -> Result<u8> {
    let what = "launch sandbox";
    let spec: LaunchSpec = read_json(path)?
        .ok_or_else(|| rejected(what, format!("{} is not there", path.display())))?;
    let _lock = exclusive(&spec)?;
    if let Some(running) = Launched::living(&spec.launched) {
        return report(&running).map(|()| 0);
    }
    let console = File::options()
        .create(true)
        .append(true)
        .open(&spec.console)
        .map_err(io(what, spec.console.display()))?;
    enter(&spec)?;
    let (go_out, go_in) = pipe2(OFlag::O_CLOEXEC).map_err(errno(what, "pipe"))?;
    let (error_out, error_in) = pipe2(OFlag::O_CLOEXEC).map_err(errno(what, "pipe"))?;
    match fork_single_threaded().map_err(errno(what, "fork"))? {
        Side::Parent(child) => {
            drop((go_out, error_in));
            supervise(&spec, child, go_in, error_out)
        }
        Side::Child => {
            drop((go_in, error_out));
            become_sandbox(&spec, &console, go_out, error_in)
        }
    }
}

/// One launcher at a time for a server, also after the Coffer that started one has died.
fn exclusive(spec: &LaunchSpec) -> Result<File> {
    let path = spec.launched.with_extension("lock");
    let file = File::create(&path).map_err(io("launch sandbox", path.display()))?;
    file.try_lock()
        .map_err(|_| transient("launch sandbox", "it is being launched already"))?;
    Ok(file)
}

/// Joins what a process joins for its children: groups, network, and the next pid namespace.
fn enter(spec: &LaunchSpec) -> Result<()> {
    let what = "launch sandbox";
    for group in &spec.groups {
        let procs = group.join("cgroup.procs");
        fs::write(&procs, "0").map_err(io(what, procs.display()))?;
    }
    match &spec.netns {
        Some(path) => {
            let namespace = File::open(path).map_err(io(what, path.display()))?;
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(errno(what, path.display()))?;
        }
        None => unshare(CloneFlags::CLONE_NEWNET).map_err(errno(what, "network namespace"))?,
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(errno(what, "pid namespace"))
}

/// The launcher's own side: notes the pid, lets the child go, and hears whether it came through.
fn supervise(spec: &LaunchSpec, child: Pid, go: OwnedFd, errors: OwnedFd) -> Result<u8> {
    let what = "launch sandbox";
    let start_time = start_time(child.as_raw())
        .ok_or_else(|| transient(what, "its first process ended at once"))?;
    let launched = Launched {
        pid: child.as_raw(),
        start_time,
        boot_id: boot_id(),
    };
    let noted = write_json_for_this_boot(&spec.launched, &launched);
    if noted.is_err() {
        kill(child, Signal::SIGKILL).map_err(errno(what, "stop it again"))?;
        noted?;
    }
    // A child that died already shows in what it wrote.
    File::from(go).write_all(b"g").ok();
    let mut error = String::new();
    File::from(errors)
        .read_to_string(&mut error)
        .map_err(io(what, "its errors"))?;
    if !error.is_empty() {
        waitpid(child, None).map_err(errno(what, "wait"))?;
        return Err(rejected(what, error));
    }
    report(&launched)?;
    if spec.is_waiting {
        return match waitpid(child, None).map_err(errno(what, "wait"))? {
            WaitStatus::Exited(_, code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            WaitStatus::Signaled(_, signal, _) => {
                eprintln!("its first process was ended by {signal}");
                Ok(ENDED_BY_SIGNAL)
            }
            other => Err(transient(what, format!("it was stopped: {other:?}"))),
        };
    }
    Ok(0)
}

fn report(launched: &Launched) -> Result<()> {
    let text = serde_json::to_string(launched).map_err(|e| rejected("launch sandbox", e))?;
    // Nobody reads when Coffer died; the file says the same.
    writeln!(std::io::stdout(), "{text}").ok();
    Ok(())
}

/// The child's side. Returns only an exit code: its success is the exec.
fn become_sandbox(spec: &LaunchSpec, console: &File, go: OwnedFd, errors: OwnedFd) -> Result<u8> {
    let mut word = [0];
    let is_noted = File::from(go).read_exact(&mut word).is_ok();
    if is_noted && let Err(error) = prepare(spec, console).and_then(|()| jail::enter(spec)) {
        // The launcher waits for the end of this pipe, so it is there to read.
        File::from(errors)
            .write_all(error.to_string().as_bytes())
            .ok();
    }
    // Destructors of the copied process must not run: its files belong to the launcher.
    std::process::exit(125)
}

fn prepare(spec: &LaunchSpec, console: &File) -> Result<()> {
    let what = "launch sandbox";
    setsid().map_err(errno(what, "session"))?;
    let null = File::open("/dev/null").map_err(io(what, "/dev/null"))?;
    redirect(null.as_fd(), 0).map_err(errno(what, "standard input"))?;
    for standard in [1, 2] {
        redirect(console.as_fd(), standard).map_err(errno(what, spec.console.display()))?;
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(errno(what, "namespaces"))?;
    nix::unistd::sethostname(&spec.host_name).map_err(errno(what, &spec.host_name))
}

//! Starting processes from init: the crate's only module that spawns, and its only unsafe one.
//!
//! Init has one thread, so a forked child may use ordinary code before it executes its program.
//! The child tells its start time and any failure over a pipe that closes at execution.

#![expect(
    unsafe_code,
    reason = "fork, execution under another user, and dropping of rights"
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use coffer_engines::runtime::Layout;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::unistd::{ForkResult, Gid, Pid, Uid};

use crate::error::{GuestError, Result};
use crate::init::confine;
use crate::log;

/// The first descriptor that is left to a child beside the standard ones.
const FIRST_INHERITED: RawFd = 3;

/// Takes the second of the numbers that children inherit, for as long as the answer is kept: what
/// init opens later has another one then, and is not written over in a child.
pub(super) fn take_place() -> Result<File> {
    File::open("/dev/null").map_err(GuestError::io("open /dev/null"))
}

/// Where a child's three standard descriptors lead; `None` is `/dev/null`, or init's own for
/// output.
#[derive(Debug, Default)]
pub(super) struct Stdio {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) output: Option<OwnedFd>,
}

/// What to execute, and as whom.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// The program, by its path.
    pub(super) path: String,
    /// What is executed instead, under the same name.
    pub(super) image: Option<&'a File>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) uid: u32,
    /// Directories of the engine; with them the child is confined.
    pub(super) confine: Option<&'a Layout>,
    /// Become descriptors 3 and 4 of the child.
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) stdio: Stdio,
}

/// A process that executes its program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Clock ticks since boot.
    pub(super) start_ticks: u64,
}

/// Starts a process; returns when its program is executed or could not be.
pub(super) fn start(launch: Launch<'_>) -> Result<Started> {
    let what = format!("start {}", launch.path);
    let (mut report, child_report) = pipe(&what)?;
    // SAFETY: init has one thread; the child only runs `become_program`, which ends in execution
    // or `_exit`.
    match unsafe { nix::unistd::fork() }.map_err(GuestError::sys(what.clone()))? {
        ForkResult::Child => {
            drop(report);
            let mut child_report = child_report;
            let error = become_program(launch, &mut child_report);
            // Nobody is left to tell if this cannot be written.
            child_report.write_all(format!("!{error}").as_bytes()).ok();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop(child_report);
            let mut said = String::new();
            report
                .read_to_string(&mut said)
                .map_err(GuestError::io(what.clone()))?;
            let (ticks, failure) = said.split_once('!').unwrap_or((&said, ""));
            if !failure.is_empty() || ticks.is_empty() {
                reap(child);
                return Err(GuestError::Init {
                    why: format!("{what}: {failure}"),
                });
            }
            Ok(Started {
                pid: child,
                start_ticks: ticks.trim().parse().unwrap_or(0),
            })
        }
    }
}

fn reap(pid: Pid) {
    nix::sys::wait::waitpid(pid, None).ok();
}

/// A pipe whose ends close at execution.
pub(super) fn pipe(what: &str) -> Result<(File, File)> {
    let (read, write) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(GuestError::sys(what.to_owned()))?;
    Ok((File::from(read), File::from(write)))
}

/// Turns the child into the program; returns only what went wrong.
fn become_program(launch: Launch<'_>, report: &mut File) -> String {
    match try_become(launch, report) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

fn try_become(
    launch: Launch<'_>,
    report: &mut File,
) -> std::result::Result<std::convert::Infallible, String> {
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let ticks = own_start_ticks().map_err(step("read the start time"))?;
    report
        .write_all(ticks.to_string().as_bytes())
        .map_err(step("report"))?;
    nix::unistd::setsid().map_err(|e| step("begin a session")(e.into()))?;
    reset_signals().map_err(step("reset signals"))?;
    set_descriptors(&launch).map_err(step("set descriptors"))?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)
        .map_err(|e| step("forbid core files")(e.into()))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    std::env::set_current_dir("/").map_err(step("leave the directory"))?;
    give_up_rights(&launch).map_err(step("give up rights"))?;
    let error = execute(&launch);
    Err(format!("execute: {error}"))
}

/// Field 22 of `/proc/self/stat`; the command's name before it may hold anything.
fn own_start_ticks() -> io::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = after
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("/proc/self/stat is not as expected"))
}

fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

fn set_descriptors(launch: &Launch<'_>) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let stdin = launch
        .stdio
        .stdin
        .as_ref()
        .map_or_else(|| null.as_raw_fd(), AsRawFd::as_raw_fd);
    copy_descriptor(stdin, 0)?;
    if let Some(output) = &launch.stdio.output {
        copy_descriptor(output.as_raw_fd(), 1)?;
        copy_descriptor(output.as_raw_fd(), 2)?;
    }
    let mut first_closed = FIRST_INHERITED;
    for inherited in &launch.inherited {
        copy_descriptor(inherited.as_raw_fd(), first_closed)?;
        first_closed += 1;
    }
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks descriptors only; none of them is used after execution.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first_closed.unsigned_abs(),
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn copy_descriptor(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: both numbers are this process's own. `dup2` onto itself would keep close-on-exec,
    // which cannot be: 0 to 2 are open in init, 3 is its signal descriptor, and 4 its placeholder.
    let result = unsafe { libc::dup2(from, to) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// No new privileges, no capabilities, another user. What the provider has already done is done
/// again where that is possible.
fn give_up_rights(launch: &Launch<'_>) -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    for capability in 0..=63_u64 {
        // SAFETY: lowers this process's own rights. Without CAP_SETPCAP it is refused, and the
        // set stays as small as the provider made it; without privileges to gain it is harmless.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    if let Some(layout) = launch.confine {
        match confine::confine(layout) {
            Ok(true) => {}
            Ok(false) => log::warn(format_args!("this kernel has no landlock")),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    let (uid, gid) = (Uid::from_raw(launch.uid), Gid::from_raw(launch.uid));
    // In a sandbox with one user id there is no other to become, and no right to leave groups,
    // which are none there that have a name.
    if nix::unistd::geteuid() != uid {
        nix::unistd::setgroups(&[])?;
    }
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    clear_capabilities()?;
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("the user can be changed back"));
    }
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn clear_capabilities() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapabilityHeader {
        version: VERSION_3,
        pid: 0,
    };
    let data = [CapabilityData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both structures have the kernel's layout for this version and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn execute(launch: &Launch<'_>) -> io::Error {
    let text = |text: &str| CString::new(text).map_err(|_| io::Error::other("a NUL in it"));
    let env: io::Result<Vec<CString>> = launch
        .env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect();
    let args: io::Result<Vec<CString>> = launch.args.iter().map(|arg| text(arg)).collect();
    let (env, args) = match (env, args) {
        (Ok(env), Ok(args)) => (env, args),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let path = match text(&launch.path) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let words: Vec<&CString> = std::iter::once(&path).chain(&args).collect();
    let executed = match launch.image {
        // It has no path. That its descriptor closes at execution does not hinder an ELF file.
        Some(image) => nix::unistd::execveat(image, c"", &words, &env, AtFlags::AT_EMPTY_PATH),
        None => nix::unistd::execve(&path, &words, &env),
    };
    match executed {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// Kills every process of a user, however it hides: a process of that user signals all that it
/// may. The caller's own processes of other users are out of its reach. Says whether there was
/// none left to kill; those that ended and were not reaped count.
pub(super) fn kill_all_of(uid: u32) -> bool {
    if !has_processes(uid) {
        return true;
    }
    // SAFETY: as in `start`; the child changes its user, sends one signal and ends.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            let is_user = nix::unistd::setgroups(&[]).is_ok()
                && nix::unistd::setresgid(group, group, group).is_ok()
                && nix::unistd::setresuid(user, user, user).is_ok();
            if is_user {
                // It says that it went well also where it met nothing but others' processes.
                nix::sys::signal::kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
            }
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => {
            nix::sys::wait::waitpid(child, None).ok();
        }
        // No process can be made just now; the caller tries again.
        Err(_) => {}
    }
    !has_processes(uid)
}

/// Whether the sandbox has a process of this user. The kernel counts them by their real user,
/// which a program without capabilities cannot change, and shows even those that `/proc` hides.
fn has_processes(uid: u32) -> bool {
    Errno::clear();
    // SAFETY: only asks for a number.
    unsafe { libc::getpriority(libc::PRIO_USER, uid) };
    Errno::last() != Errno::ESRCH
}

/// As [`kill_all_of`], where everything in the sandbox has one user id: kills every process but
/// init and the one that is kept, the agent. Only the first process of a sandbox sees no others'
/// in `/proc`.
pub(super) fn kill_all_but(kept: Option<Pid>) -> bool {
    let own = nix::unistd::getpid();
    if own.as_raw() != 1 {
        return true;
    }
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let others: Vec<Pid> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != own && Some(*pid) != kept)
        .collect();
    for pid in &others {
        // It may have ended since.
        nix::sys::signal::kill(*pid, Signal::SIGKILL).ok();
    }
    others.is_empty()
}

/// The descriptor that init left to this process under this number.
pub(crate) fn inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: only asks for the descriptor's flags.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(GuestError::Init {
            why: "there is no descriptor from init: the agent is started by `coffer-guest init`"
                .to_owned(),
        });
    }
    // SAFETY: it is open, and nothing else in this process knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

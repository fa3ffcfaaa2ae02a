//! Coffer without root: a user namespace in which it is root, and a process that holds it.
//!
//! Coffer enters that namespace before its first thread, and then everything of the local provider
//! works as it does for root, as far as the kernel lets it: mounts, tenant networks, sandboxes. Not
//! so the host's network, whose root it is not; `relay.rs` publishes instead. Only one user id is
//! known inside, Coffer's own. The holder, a process that sleeps, keeps the namespaces while no
//! Coffer runs, so that the next one finds the names of tenant networks where the last one made
//! them; what runs in sandboxes does not need it. ADR 0006 says why it is done so.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid, pause, pipe2, setsid};

use super::clock::wait_until;
use super::failure::{errno, io, rejected, transient};
use super::record::{
    Launched, Lock, boot_id, private_dir, remove_file, start_time, write_json_for_this_boot,
};
use super::sys::{Side, fork_single_threaded, redirect};
use super::{limits, process, sys};
use crate::error::Result;

const WHAT: &str = "run without root";
/// The word by which the program at `holder` in [`enter`] is told to call [`hold`].
const HOLD: &str = "sandbox-hold";
/// What helps where user namespaces are refused.
pub(super) const ALLOW: &str = "run coffer as root, or let users make user namespaces: sysctl \
    user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 (Debian), \
    kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)";

/// Whether this process is no root, or is one in a namespace that knows no other user id.
pub fn is_without_root() -> bool {
    !geteuid().is_root() || has_one_id()
}

/// Whether the user namespace of this process has a single user id, as the one made here.
pub(super) fn has_one_id() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    has_one(&map)
}

fn has_one(map: &str) -> bool {
    let lengths: Vec<&str> = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    lengths == ["1"]
}

/// Enters the namespaces of the Coffer with this state directory, which `holder`, this very
/// program, holds; nothing is done by root. The process must have one thread.
pub fn enter(state_dir: &Path, holder: &Path) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    private_dir(state_dir)?;
    let locks = state_dir.join("locks");
    fs::create_dir_all(&locks).map_err(io(WHAT, locks.display()))?;
    let _lock = Lock::take(state_dir, "holder")?;
    let held = match Launched::living(&file_of(state_dir)) {
        Some(held) => held,
        None => start(state_dir, holder)?,
    };
    join(&held)
}

/// As [`enter`], to look at what can be done there: where nobody holds the namespaces this process
/// gets some of its own, which end with it. It leaves nothing behind.
pub fn visit(state_dir: &Path) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    match Launched::living(&file_of(state_dir)) {
        Some(held) => join(&held),
        None => become_root(),
    }
}

/// Lets the namespaces go that are held, for a Coffer that leaves the host.
pub(super) fn release(state_dir: &Path) -> Result<()> {
    let file = file_of(state_dir);
    if let Some(held) = Launched::living(&file) {
        // It may just have ended.
        kill(Pid::from_raw(held.pid), Signal::SIGKILL).ok();
    }
    remove_file(&file)
}

/// The holder's program: makes the namespaces, in a child that then sleeps for ever, writes down
/// which process that is, and ends. The process must have one thread.
pub fn hold(state_dir: &Path) -> ExitCode {
    match begin(state_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this process, which has all rights in its user namespace, a plain user of one more in
/// which there is nobody else, and which owns nothing: its rights end with the next execution.
pub(super) fn become_user(uid: u32) -> Result<()> {
    enter_user_namespace(uid, CloneFlags::CLONE_NEWUSER)
}

/// What it means that an instance has one user id, in words.
pub(super) fn shared_user() -> String {
    let kept = match sys::landlock_version() {
        Some(_) => "landlock alone keeps an engine from its agent's files and memory",
        None => "nothing keeps an engine from its agent's files and memory (no landlock either)",
    };
    format!(
        "user ids of their own: Coffer runs without root, so {kept}, and programs that its \
         superuser runs can log in to it as Coffer does"
    )
}

fn file_of(state_dir: &Path) -> PathBuf {
    state_dir.join("holder.json")
}

fn start(state_dir: &Path, holder: &Path) -> Result<Launched> {
    let words = [HOLD, &state_dir.display().to_string()];
    let program = holder.display().to_string();
    let ended = process::run_to_end(WHAT, &program, &words, None, limits::LAUNCH)?;
    if ended.code != Some(0) {
        return Err(rejected(WHAT, own_words(&ended.stderr)));
    }
    Launched::living(&file_of(state_dir))
        .ok_or_else(|| transient(WHAT, "the holder of its namespaces ended at once"))
}

/// What a child said of its failure, without what is said again of it here.
fn own_words(said: &str) -> &str {
    let said = said.trim();
    let rest = said
        .strip_prefix(WHAT)
        .and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(said)
}

/// Enters the holder's namespaces; relative paths mean what they meant.
fn join(held: &Launched) -> Result<()> {
    let open = |name: &str| {
        let path = format!("/proc/{}/ns/{name}", held.pid);
        File::open(&path).map_err(io(WHAT, path))
    };
    let (user, mounts) = (open("user")?, open("mnt")?);
    // What read the holder's words was a thread of its own, and may be about to end.
    if !wait_until(limits::END, || threads() == 1) {
        return Err(transient(WHAT, "the process has more than one thread"));
    }
    let here = std::env::current_dir();
    setns(user, CloneFlags::CLONE_NEWUSER).map_err(errno(WHAT, "enter its user namespace"))?;
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(errno(WHAT, "enter its mount namespace"))?;
    match here {
        Ok(here) => std::env::set_current_dir(&here).map_err(io(WHAT, here.display())),
        // It was removed; the root is as good.
        Err(_) => Ok(()),
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn begin(state_dir: &Path) -> Result<()> {
    let (go_out, go_in) = pipe2(OFlag::O_CLOEXEC).map_err(errno(WHAT, "pipe"))?;
    let (told_out, told_in) = pipe2(OFlag::O_CLOEXEC).map_err(errno(WHAT, "pipe"))?;
    match fork_single_threaded().map_err(errno(WHAT, "fork"))? {
        Side::Child => {
            drop((go_in, told_out));
            sleep_inside(go_out, told_in)
        }
        Side::Parent(child) => {
            drop((go_out, told_in));
            let mut told = String::new();
            let heard = File::from(told_out).read_to_string(&mut told);
            heard.map_err(io(WHAT, "its errors"))?;
            if !told.is_empty() {
                return Err(rejected(WHAT, own_words(&told)));
            }
            let pid = child.as_raw();
            let held = Launched {
                pid,
                start_time: start_time(pid)
                    .ok_or_else(|| transient(WHAT, "the holder ended at once"))?,
                boot_id: boot_id(),
            };
            // A child that hears nothing ends.
            write_json_for_this_boot(&file_of(state_dir), &held)?;
            File::from(go_in).write_all(b"g").map_err(io(WHAT, "start"))
        }
    }
}

/// The child's side.
fn sleep_inside(go: OwnedFd, told: OwnedFd) -> ! {
    let leave_terminal = || {
        setsid().map_err(errno(WHAT, "session"))?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(io(WHAT, "/dev/null"))?;
        (0..3).try_for_each(|standard| {
            redirect(null.as_fd(), standard).map_err(errno(WHAT, "/dev/null"))
        })
    };
    if let Err(error) = become_root().and_then(|()| leave_terminal()) {
        File::from(told)
            .write_all(error.to_string().as_bytes())
            .ok();
        std::process::exit(1);
    }
    drop(told);
    let mut word = [0];
    if File::from(go).read_exact(&mut word).is_err() {
        std::process::exit(1);
    }
    loop {
        pause();
    }
}

/// Makes this process root in a user namespace of its own, with mounts of its own.
fn become_root() -> Result<()> {
    enter_user_namespace(0, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // What is mounted on the host later shows here, and nothing from here there. It also tells a
    // namespace that gives rights from one that a security module has emptied.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(|why| {
        rejected(
            WHAT,
            format!("nothing can be mounted ({}): {ALLOW}", why.desc()),
        )
    })
}

fn enter_user_namespace(uid: u32, namespaces: CloneFlags) -> Result<()> {
    let (own_uid, own_gid) = (geteuid(), getegid());
    unshare(namespaces).map_err(|why| {
        let told = format!(
            "user namespaces are not allowed here ({}): {ALLOW}",
            why.desc()
        );
        rejected(WHAT, told)
    })?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {own_uid} 1")),
        ("gid_map", format!("{uid} {own_gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).map_err(io(WHAT, path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_with_one_user_id_is_told_from_others() {
        assert!(has_one("         0       1000          1\n"));
        assert!(!has_one("         0          0 4294967295\n"));
        assert!(!has_one("0 100000 65536\n"));
        // With ids from /etc/subuid there are others.
        assert!(!has_one("0 1000 1\n1 100000 65536\n"));
        assert!(!has_one(""));
    }

    #[test]
    fn a_failure_is_named_once() {
        let said = rejected(WHAT, "it is not allowed").to_string();
        assert_eq!(own_words(&said), "it is not allowed");
        assert_eq!(own_words("fork: no memory\n"), "fork: no memory");
    }
}

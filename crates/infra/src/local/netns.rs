//! Network namespaces: made and removed by name, entered on threads that end afterwards.
//!
//! A thread that entered a namespace is never given back to a pool: whatever ran on it later would
//! stay in there. So every entry costs one short-lived thread, and no process is spawned.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::failure::{errno, io, transient};
use crate::error::{ProviderError, Result};

/// Longest wait for a guest's answer to a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Stack of a thread that only makes a few system calls.
const STACK_BYTES: usize = 256 << 10;

/// Connects to `address` from inside the namespace at `path` and hands the socket back. The socket
/// stays in that namespace; nothing else does.
pub(crate) async fn connect_in(path: &str, address: SocketAddr) -> Result<TcpStream> {
    let what = "dial guest";
    let (sender, receiver) = oneshot::channel();
    let path = path.to_owned();
    let dial = move || {
        let stream = enter(what, Path::new(&path)).and_then(|()| {
            StdStream::connect_timeout(&address, DIAL_LIMIT).map_err(io(what, address))
        });
        // Nobody listens when the caller gave up; the socket closes then.
        sender.send(stream).ok();
    };
    thread::Builder::new()
        .name("coffer-dial".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(dial)
        .map_err(io(what, "start a thread"))?;
    let stream = receiver
        .await
        .map_err(|_| transient(what, "the thread ended early"))??;
    stream.set_nonblocking(true).map_err(io(what, address))?;
    stream.set_nodelay(true).map_err(io(what, address))?;
    TcpStream::from_std(stream).map_err(io(what, address))
}

/// Runs `work` inside the namespace at `path` and returns what it returned.
pub(super) fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let what = "enter network namespace";
    on_thread(what, || enter(what, path).and_then(|()| work()))
}

/// Runs `work` in a new namespace that is gone afterwards.
pub(super) fn run_apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let what = "make network namespace";
    on_thread(what, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(errno(what, "for a trial"))?;
        work()
    })
}

/// Makes a namespace with a name in a directory if it is not there; says whether it made it.
pub(super) fn ensure(path: &Path) -> Result<bool> {
    let what = "make network namespace";
    if is_alive(path) {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(io(what, dir.display()))?;
    }
    File::create(path).map_err(io(what, path.display()))?;
    on_thread(what, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(errno(what, path.display()))?;
        let own = "/proc/thread-self/ns/net";
        mount(
            Some(own),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(errno(what, path.display()))
    })?;
    Ok(true)
}

/// Removes a named namespace if it is there. The kernel frees it when the last process in it and
/// the last socket of it are gone.
pub(super) fn delete(path: &Path) -> Result<()> {
    let what = "remove network namespace";
    // Mounted more than once only if two processes made it at once.
    while is_alive(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(errno(what, path.display()))?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(what, path.display())(e)),
        _ => Ok(()),
    }
}

/// Whether a namespace is mounted there, and not a file left over from before a reboot.
pub(super) fn is_alive(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Number of the namespace there: another one after a reboot.
pub(super) fn inode(path: &Path) -> Option<u64> {
    is_alive(path).then(|| fs::metadata(path).ok().map(|m| m.ino()))?
}

/// Names of all namespaces in a directory.
pub(super) fn list(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

fn enter(what: &'static str, path: &Path) -> Result<()> {
    if !is_alive(path) {
        return Err(ProviderError::NotFound {
            what: "network namespace",
        });
    }
    let namespace = File::open(path).map_err(io(what, path.display()))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(errno(what, path.display()))
}

fn on_thread<T: Send>(what: &'static str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new()
            .name("coffer-netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(io(what, "start a thread"))?;
        spawned.join().map_err(|_| ProviderError::Bug {
            what,
            why: "the thread panicked".into(),
        })?
    })
}

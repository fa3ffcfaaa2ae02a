//! What a sandbox sees: its root, its few devices, its volume; and what it may do.
//!
//! Runs in the sandbox's first process, inside mount, pid, ipc and uts namespaces that nobody else
//! is in. The volume is attached and mounted here and nowhere else, so that it is let go by the
//! kernel when the last process of the sandbox ends: there is nothing on the host to clean up.
//!
//! Without root these namespaces belong to a user namespace in which Coffer is root (`world.rs`),
//! and at the end the process enters another one, in which it is one plain user and owns nothing.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{Gid, execve, fchdir, pivot_root, setgroups, setresgid};

use super::failure::{errno, io, rejected};
use super::launch::LaunchSpec;
use super::owners::Owners;
use super::{cgroup, loops, seccomp, sys, world};
use crate::error::Result;

/// Where the guest's program stands inside.
pub(super) const GUEST_DIR: &str = "/usr/lib/coffer";
/// Where the data volume is mounted inside.
pub(super) const DATA_DIR: &str = "/data";
const WHAT: &str = "set up sandbox";

/// What the first process keeps: to give files to the agent and the engine, to become them, and
/// to end them. Numbers of CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP (the last to
/// take the rest away from its children).
const CAPABILITIES: [u8; 7] = [0, 1, 3, 5, 6, 7, 8];

/// Top-level directories of an engine root that are shown; links at the top are copied.
const SHOWN: [&str; 8] = ["usr", "etc", "var", "opt", "bin", "sbin", "lib", "lib64"];
/// Devices that exist inside: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Parts of `/proc` that can be changed by user id 0 without any capability.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Parts of `/proc` that tell of the host.
const PROC_HIDDEN: [&str; 5] = ["kcore", "keys", "timer_list", "sched_debug", "kallsyms"];

/// Builds the sandbox around this process and becomes the guest's program; returns only if that
/// cannot be done.
pub(super) fn enter(spec: &LaunchSpec) -> Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    let volume = build_root(spec)?;
    switch_root(&spec.mount_point)?;
    confine(spec)?;
    if let Some(lock) = &volume {
        // The program that this process becomes holds it then.
        fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(errno(WHAT, DATA_DIR))?;
    }
    let program = format!("{GUEST_DIR}/coffer-guest");
    let text = |s: &str| CString::new(s).map_err(|e| rejected(WHAT, e));
    let mut arguments = vec![text(&program)?];
    for argument in &spec.arguments {
        arguments.push(text(argument)?);
    }
    let environment = [
        text("PATH=/usr/bin:/usr/sbin:/bin:/sbin")?,
        text("LANG=C.UTF-8")?,
    ];
    let program_path = text(&program)?;
    match execve(&program_path, &arguments, &environment) {
        Err(e) => Err(errno(WHAT, program)(e)),
        Ok(never) => match never {},
    }
}

/// Puts everything in its place; returns the lock of a volume that is a directory.
fn build_root(spec: &LaunchSpec) -> Result<Option<File>> {
    let root = &spec.mount_point;
    // What is mounted here must not show on the host, nor what the host mounts later in here.
    attach(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        "",
    )?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach(
        Some("tmpfs"),
        root,
        Some("tmpfs"),
        flags,
        "size=1m,mode=0755",
    )?;
    let tree = spec
        .roots
        .first()
        .ok_or_else(|| rejected(WHAT, "no engine root is named"))?;
    bind_tree(tree, root)?;
    own_file_systems(spec, root)?;
    for (n, other) in spec.roots.iter().enumerate().skip(1) {
        let at = root.join(format!("run/roots/{n}"));
        make_dir(&at)?;
        bind_read_only(other, &at)?;
    }
    bind_guest(spec, root)?;
    put_files(spec, root)?;
    let owners = spec.only_uid().is_none().then_some(Owners {
        agent: spec.agent_uid,
        engine: spec.engine_uid,
    });
    loops::mount_volume(&spec.volume, &root.join("data"), owners)
}

/// Shows the tree's top-level directories, read-only, and copies its links (`/bin` and so on).
fn bind_tree(tree: &Path, root: &Path) -> Result<()> {
    let damaged = |e| {
        rejected(
            WHAT,
            format!("engine root {} ({e}): build it again", tree.display()),
        )
    };
    for entry in fs::read_dir(tree).map_err(damaged)?.flatten() {
        let name = entry.file_name();
        let at = root.join(&name);
        let kind = entry
            .file_type()
            .map_err(io(WHAT, entry.path().display()))?;
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).map_err(io(WHAT, at.display()))?;
            symlink(target, &at).map_err(io(WHAT, at.display()))?;
        } else if kind.is_dir() && SHOWN.iter().any(|shown| name == *shown) {
            make_dir(&at)?;
            bind_read_only(&entry.path(), &at)?;
        }
    }
    let guest = root.join(&GUEST_DIR[1..]);
    if !guest.is_dir() {
        let why = format!(
            "engine root {} lacks {GUEST_DIR}: build it again",
            tree.display()
        );
        return Err(rejected(WHAT, why));
    }
    Ok(())
}

/// `/proc`, `/dev`, `/tmp` and `/run`, new and bounded.
fn own_file_systems(spec: &LaunchSpec, root: &Path) -> Result<()> {
    for dir in ["proc", "dev", "tmp", "run", "data", "root"] {
        make_dir(&root.join(dir))?;
    }
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The agent's group sees all processes; the engine sees its own. Where they are one user, there
    // is no such group, and landlock keeps the engine out of `/proc`.
    let options = match spec.only_uid() {
        None => format!("hidepid=2,gid={}", spec.agent_uid),
        Some(_) => String::new(),
    };
    attach(
        Some("proc"),
        &root.join("proc"),
        Some("proc"),
        closed,
        &options,
    )?;
    attach(
        Some("tmpfs"),
        &root.join("tmp"),
        Some("tmpfs"),
        closed,
        "size=64m,mode=1777",
    )?;
    attach(
        Some("tmpfs"),
        &root.join("run"),
        Some("tmpfs"),
        closed,
        "size=16m,mode=0755",
    )?;
    let dev = root.join("dev");
    let device_flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach(
        Some("tmpfs"),
        &dev,
        Some("tmpfs"),
        device_flags,
        "size=64k,mode=0755",
    )?;
    match spec.only_uid() {
        None => make_devices(&dev)?,
        Some(_) => bind_devices(&dev)?,
    }
    link_descriptors(&dev)?;
    make_dir(&dev.join("shm"))?;
    let half = format!("size={}m,mode=1777", (spec.memory_mib / 2).max(16));
    attach(
        Some("tmpfs"),
        &dev.join("shm"),
        Some("tmpfs"),
        closed,
        &half,
    )?;
    remount(&dev, device_flags | MsFlags::MS_RDONLY)?;
    mask_proc(root)
}

fn make_devices(dev: &Path) -> Result<()> {
    for (name, major, minor) in DEVICES {
        let at = dev.join(name);
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&at, SFlag::S_IFCHR, mode, makedev(major, minor)).map_err(errno(WHAT, name))?;
        fs::set_permissions(&at, Permissions::from_mode(0o666)).map_err(io(WHAT, name))?;
    }
    Ok(())
}

/// The host's own devices: in a user namespace none can be made.
fn bind_devices(dev: &Path) -> Result<()> {
    for (name, ..) in DEVICES {
        let (at, of_host) = (dev.join(name), format!("/dev/{name}"));
        File::create(&at).map_err(io(WHAT, at.display()))?;
        attach(Some(&of_host), &at, None, MsFlags::MS_BIND, "")?;
    }
    Ok(())
}

fn link_descriptors(dev: &Path) -> Result<()> {
    for (name, target) in [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ] {
        symlink(format!("/proc/self/fd{target}"), dev.join(name)).map_err(io(WHAT, name))?;
    }
    Ok(())
}

fn mask_proc(root: &Path) -> Result<()> {
    let proc = root.join("proc");
    for name in PROC_READ_ONLY {
        let at = proc.join(name);
        if at.exists() {
            bind_read_only(&at, &at)?;
        }
    }
    let null = root.join("dev/null");
    for name in PROC_HIDDEN {
        let at = proc.join(name);
        if at.exists() {
            attach(null.to_str(), &at, None, MsFlags::MS_BIND, "")?;
        }
    }
    Ok(())
}

/// Puts the guest's program, and nothing else of the host, in its directory.
fn bind_guest(spec: &LaunchSpec, root: &Path) -> Result<()> {
    let dir = root.join(&GUEST_DIR[1..]);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach(
        Some("tmpfs"),
        &dir,
        Some("tmpfs"),
        flags,
        "size=4k,mode=0755",
    )?;
    let at = dir.join("coffer-guest");
    File::create(&at).map_err(io(WHAT, at.display()))?;
    bind_read_only(&spec.guest_binary, &at)?;
    remount(&dir, flags | MsFlags::MS_RDONLY)
}

/// Writes the sandbox's own small files to `/run/coffer`, and shows those meant for elsewhere
/// there, where the root has a file to put them over.
fn put_files(spec: &LaunchSpec, root: &Path) -> Result<()> {
    let dir = root.join("run/coffer");
    make_dir(&dir)?;
    for (path, content) in &spec.files {
        let name = Path::new(path)
            .file_name()
            .ok_or_else(|| rejected(WHAT, path))?;
        let kept = dir.join(name);
        fs::write(&kept, content).map_err(io(WHAT, path))?;
        let shown = root.join(path.trim_start_matches('/'));
        if shown != kept && shown.is_file() {
            bind_read_only(&kept, &shown)?;
        }
    }
    Ok(())
}

/// Makes `new` the root of this namespace and lets the host's file systems go.
fn switch_root(new: &Path) -> Result<()> {
    let dir = File::open(new).map_err(io(WHAT, new.display()))?;
    fchdir(&dir).map_err(errno(WHAT, new.display()))?;
    pivot_root(".", ".").map_err(errno(WHAT, "pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(errno(WHAT, "let the host's root go"))?;
    std::env::set_current_dir("/").map_err(io(WHAT, "/"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    remount(Path::new("/"), flags)
}

/// Gives up what the guest does not need; nothing after this may want more.
fn confine(spec: &LaunchSpec) -> Result<()> {
    // A core dump would hold the tenant's data and keys.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(errno(WHAT, "core limit"))?;
    let kept: &[u8] = match spec.only_uid() {
        None => {
            setgroups(&[Gid::from_raw(spec.agent_uid)]).map_err(errno(WHAT, "groups"))?;
            // Coffer's own group may be another, which a volume's mount may not know.
            let root = Gid::from_raw(0);
            setresgid(root, root, root).map_err(errno(WHAT, "group"))?;
            &CAPABILITIES
        }
        Some(uid) => {
            world::become_user(uid)?;
            &[]
        }
    };
    if spec.groups.is_empty() {
        limit_tasks()?;
    }
    sys::close_on_exec_from(3).map_err(errno(WHAT, "descriptors"))?;
    sys::bound_capabilities(kept).map_err(errno(WHAT, "capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(errno(WHAT, "no_new_privs"))?;
    for filter in seccomp::filters()? {
        seccompiler::apply_filter(&filter).map_err(|e| rejected(WHAT, e))?;
    }
    Ok(())
}

/// Without control groups at least the engine's processes are counted, by its user id, which no
/// other sandbox has: or has in another user namespace, in which the kernel counts apart.
fn limit_tasks() -> Result<()> {
    let most = u64::from(cgroup::TASKS_MAX);
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).map_err(errno(WHAT, "task limit"))?;
    let most = most.min(hard);
    setrlimit(Resource::RLIMIT_NPROC, most, most).map_err(errno(WHAT, "task limit"))
}

fn bind_read_only(source: &Path, at: &Path) -> Result<()> {
    attach(source.to_str(), at, None, MsFlags::MS_BIND, "")?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    remount(at, flags)
}

fn remount(at: &Path, flags: MsFlags) -> Result<()> {
    attach(None, at, None, MsFlags::MS_REMOUNT | flags, "")
}

fn attach(
    source: Option<&str>,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: &str,
) -> Result<()> {
    let options = (!options.is_empty()).then_some(options);
    mount(source, at, kind, flags, options)
        .map_err(|e| errno(WHAT, format!("mount {}", show(source, at)))(e))
}

fn show(source: Option<&str>, at: &Path) -> String {
    format!("{} at {}", source.unwrap_or("none"), at.display())
}

fn make_dir(at: &PathBuf) -> Result<()> {
    fs::create_dir_all(at).map_err(io(WHAT, at.display()))
}

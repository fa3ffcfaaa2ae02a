//! Templates: the initialised data directory of an engine root, made once and cloned ever after.
//!
//! Made in a sandbox of the same kind as instances run in, without any network, by the guest's own
//! `bootstrap`. The file appears under its name only when the guest ended well and the kernel has
//! unmounted it, so what is there is whole. Its name carries the volume format: a new format makes
//! new templates beside the old ones.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use coffer_core::units::IoLimits;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::wait_until;
use super::failure::{io, rejected, transient};
use super::host::Host;
use super::launch::{self, LaunchSpec};
use super::record::{Launched, Lock, read_json, write_json};
use super::{cgroup, limits, loops, pool, process, sandbox};
use crate::error::Result;
use crate::provider::Limits;

const WHAT: &str = "make template";
/// Name of how template volumes are formatted.
const FORMAT: &str = "xfs1";
/// Size of a template; every volume is at least as large.
const BYTES: u64 = 1 << 30;
/// Few allocation groups, so that a volume grown to many times the size has not too many.
const FORMAT_OPTIONS: [&str; 2] = ["-d", "agcount=2"];
const LIMITS: Limits = Limits {
    memory_mib: 1024,
    vcpus: 2,
    io: IoLimits::NONE,
};
/// How the names of control groups begin in which templates are made.
const GROUP: &str = "template-";
/// LIMIT: bytes of the guest's words that are shown when it fails.
const WORDS_MAX: usize = 2000;

/// File of a root's template.
pub(super) fn file_of(host: &Host, root: &str) -> PathBuf {
    let end = host.pool.extension();
    host.pool.templates().join(format!("{root}-{FORMAT}.{end}"))
}

/// Makes the template of a root; `false` if another process is making it.
pub(super) fn make(host: &Host, root: &str) -> Result<bool> {
    let Some(_lock) = Lock::attempt(&host.config.state_dir, &format!("template-{root}"))? else {
        return Ok(false);
    };
    let file = file_of(host, root);
    if file.exists() {
        return Ok(true);
    }
    let work = work_of(host, root);
    let groups = host.groups.ensure(&group(root), LIMITS)?;
    let part = file.with_extension("part");
    clean(&work, &groups, &part)?;
    fs::create_dir_all(&work).map_err(io(WHAT, work.display()))?;
    host.pool.format(&part, BYTES, &FORMAT_OPTIONS)?;
    let made = bootstrap(host, root, &work, &part, groups.clone());
    if !end(&work, &groups) || !loops::wait_released(&part)? {
        return Err(transient(WHAT, "its sandbox does not end"));
    }
    cgroup::remove(&groups)?;
    let result = made.and_then(|()| publish(&part, &file));
    fs::remove_dir_all(&work).map_err(io(WHAT, work.display()))?;
    if result.is_err() {
        pool::remove_volume(&part)?;
    }
    result.map(|()| true)
}

/// Ends and removes what the making of templates left behind when its Coffer died, unless another
/// process is at it: nobody may ask for that template again.
pub(super) fn sweep(host: &Host) -> Result<()> {
    for root in begun(host) {
        let key = format!("template-{root}");
        let Some(_lock) = Lock::attempt(&host.config.state_dir, &key)? else {
            continue;
        };
        let groups = host.groups.of(&group(&root));
        let part = file_of(host, &root).with_extension("part");
        let work = work_of(host, &root);
        if !end(&work, &groups) {
            return Err(transient(WHAT, "what an earlier attempt left does not end"));
        }
        cgroup::remove(&groups)?;
        pool::remove_volume(&part)?;
        if work.exists() {
            fs::remove_dir_all(&work).map_err(io(WHAT, work.display()))?;
        }
    }
    Ok(())
}

/// The roots whose templates were being made, by their control groups and working directories.
fn begun(host: &Host) -> BTreeSet<String> {
    let groups = host.groups.list();
    let groups = groups.iter().filter_map(|name| name.strip_prefix(GROUP));
    let mut all: BTreeSet<String> = groups.map(str::to_owned).collect();
    let entries = fs::read_dir(host.config.state_dir.join("making"));
    let names = entries.into_iter().flatten().flatten();
    all.extend(names.filter_map(|entry| entry.file_name().into_string().ok()));
    all
}

fn work_of(host: &Host, root: &str) -> PathBuf {
    host.config.state_dir.join("making").join(root)
}

/// Ends a sandbox: by its first process, whose namespace ends with it, and by its groups, where
/// there are any; true when nothing is left.
fn end(work: &Path, groups: &[PathBuf]) -> bool {
    let launched = Launched::living(&work.join("launched.json"));
    if let Some(running) = &launched {
        kill(Pid::from_raw(running.pid), Signal::SIGKILL).ok();
    }
    let is_over = || launched.as_ref().is_none_or(|running| !running.is_alive());
    cgroup::kill_all(groups) && wait_until(limits::END, is_over)
}

/// Ends the making of a template, if it is under way.
pub(super) fn interrupt(host: &Host, root: &str) {
    end(&work_of(host, root), &host.groups.of(&group(root)));
}

fn group(root: &str) -> String {
    format!("{GROUP}{root}")
}

/// Ends and removes what a process that died while making it left behind.
fn clean(work: &Path, groups: &[PathBuf], part: &Path) -> Result<()> {
    if end(work, groups) && loops::wait_released(part)? {
        return Ok(());
    }
    Err(transient(WHAT, "an earlier attempt does not end"))
}

fn bootstrap(
    host: &Host,
    root: &str,
    work: &Path,
    part: &Path,
    groups: Vec<PathBuf>,
) -> Result<()> {
    let uids = host.uids_inside((host.config.uid_base, host.config.uid_base + 1));
    let boot = boot(host, root, uids)?;
    let spec = LaunchSpec {
        netns: None,
        groups,
        roots: vec![sandbox::root_tree(host, root)?],
        volume: part.to_owned(),
        guest_binary: host.config.guest_binary.clone(),
        arguments: vec!["bootstrap".to_owned()],
        files: sandbox::files(&boot, "coffer-template", None, uids),
        agent_uid: uids.0,
        engine_uid: uids.1,
        host_name: "coffer-template".to_owned(),
        memory_mib: LIMITS.memory_mib,
        mount_point: host.mount_point(),
        console: work.join("console.log"),
        launched: work.join("launched.json"),
        is_waiting: true,
    };
    let path = work.join("launch.json");
    write_json(&path, &spec)?;
    let (program, args) = sandbox::launcher(host, &path)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = process::run_to_end(WHAT, &program, &args, None, limits::TEMPLATE)?;
    if ended.code == Some(0) {
        return Ok(());
    }
    let console = fs::read(&spec.console).unwrap_or_default();
    let tail = &console[console.len().saturating_sub(WORDS_MAX)..];
    let words = String::from_utf8_lossy(tail);
    let mut why = format!("root {root}: {} {}", ended.stderr.trim(), words.trim());
    let kills = cgroup::memory_kills(&spec.groups);
    if kills > 0 {
        let mib = LIMITS.memory_mib;
        why.push_str(&format!("; {kills} processes did not fit into {mib} MiB"));
        return Err(rejected(WHAT, why));
    }
    // Somebody ended it from outside: the next try may be left alone.
    if ended.code == Some(i32::from(launch::ENDED_BY_SIGNAL)) {
        return Err(transient(WHAT, why));
    }
    why.push_str("; if the root is damaged: coffer image build NAME --again");
    Err(rejected(WHAT, why))
}

/// What the guest is told: which engine to initialise, and nothing to listen on.
fn boot(host: &Host, root: &str, uids: (u32, u32)) -> Result<String> {
    let path = host.config.roots_dir.join(root).join("manifest.json");
    let manifest: serde_json::Value = read_json(&path)?.ok_or_else(|| {
        rejected(
            WHAT,
            format!("engine root {root} has no manifest.json: build it again"),
        )
    })?;
    let word = |key: &str| {
        manifest["recipe"][key]
            .as_str()
            .or_else(|| manifest[key].as_str())
    };
    let (Some(engine), Some(version)) = (word("engine"), word("version")) else {
        let why = format!(
            "{} names no engine and version: build it again",
            path.display()
        );
        return Err(rejected(WHAT, why));
    };
    let boot = serde_json::json!({
        "protocol": 1,
        "server_id": uuid::Uuid::nil().to_string(),
        "instance_id": null,
        "link_ca_pem": "",
        "bind": [],
        "engine": engine,
        "engine_version": version,
        "agent_uid": uids.0,
        "engine_uid": uids.1,
        "data_dir": super::jail::DATA_DIR,
        "memory_mib": LIMITS.memory_mib,
        "vcpus": LIMITS.vcpus,
    });
    Ok(boot.to_string())
}

fn publish(part: &Path, file: &Path) -> Result<()> {
    pool::sync_file_system(part)?;
    let written = File::open(part).and_then(|opened| {
        opened.sync_all()?;
        fs::rename(part, file)?;
        File::open(file.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
    });
    written.map_err(io(WHAT, file.display()))
}

//! Templates: the initialised data directory of an engine root, made once and cloned ever after.
//!
//! Made in a sandbox of the same kind as instances run in, without any network, by the guest's own
//! `bootstrap`. The file appears under its name only when the guest ended well and the kernel has
//! unmounted it, so what is there is whole. Its name carries the volume format: a new format makes
//! new templates beside the old ones.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::failure::{io, rejected, transient};
use super::host::Host;
use super::launch::{self, LaunchSpec};
use super::record::{Lock, read_json, remove_file, write_json};
use super::{cgroup, limits, loops, process, sandbox};
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
};
/// How the names of control groups begin in which templates are made.
const GROUP: &str = "template-";
/// LIMIT: bytes of the guest's words that are shown when it fails.
const WORDS_MAX: usize = 2000;

/// File of a root's template.
pub(super) fn file_of(host: &Host, root: &str) -> PathBuf {
    host.pool.templates().join(format!("{root}-{FORMAT}.img"))
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
    let work = host.config.state_dir.join("making").join(root);
    let groups = host.groups.ensure(&group(root), LIMITS)?;
    let part = file.with_extension("part");
    clean(&groups, &part)?;
    fs::create_dir_all(&work).map_err(io(WHAT, work.display()))?;
    loops::format(&part, BYTES, &FORMAT_OPTIONS)?;
    let made = bootstrap(host, root, &work, &part, groups.clone());
    if !cgroup::kill_all(&groups) || !loops::wait_released(&part)? {
        return Err(transient(WHAT, "its sandbox does not end"));
    }
    cgroup::remove(&groups)?;
    let result = made.and_then(|()| publish(&part, &file));
    fs::remove_dir_all(&work).map_err(io(WHAT, work.display()))?;
    if result.is_err() {
        remove_file(&part)?;
    }
    result.map(|()| true)
}

/// Ends and removes what the making of templates left behind when its Coffer died, unless another
/// process is at it: nobody may ask for that template again.
pub(super) fn sweep(host: &Host) -> Result<()> {
    for name in host.groups.list() {
        let Some(root) = name.strip_prefix(GROUP) else {
            continue;
        };
        let key = format!("template-{root}");
        let Some(_lock) = Lock::attempt(&host.config.state_dir, &key)? else {
            continue;
        };
        let groups = host.groups.of(&name);
        let part = file_of(host, root).with_extension("part");
        if !cgroup::kill_all(&groups) {
            return Err(transient(WHAT, "what an earlier attempt left does not end"));
        }
        cgroup::remove(&groups)?;
        remove_file(&part)?;
    }
    // It may have died when the group was gone already, or not yet made.
    let making = host.config.state_dir.join("making");
    for entry in fs::read_dir(&making).into_iter().flatten().flatten() {
        let root = entry.file_name().to_string_lossy().into_owned();
        let key = format!("template-{root}");
        if let Some(_lock) = Lock::attempt(&host.config.state_dir, &key)? {
            fs::remove_dir_all(entry.path()).map_err(io(WHAT, making.display()))?;
        }
    }
    Ok(())
}

/// Ends the making of a template, if it is under way.
pub(super) fn interrupt(host: &Host, root: &str) {
    cgroup::kill_all(&host.groups.of(&group(root)));
}

fn group(root: &str) -> String {
    format!("{GROUP}{root}")
}

/// Ends and removes what a process that died while making it left behind.
fn clean(groups: &[PathBuf], part: &Path) -> Result<()> {
    if cgroup::kill_all(groups) && loops::wait_released(part)? {
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
    let uids = (host.config.uid_base, host.config.uid_base + 1);
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
    let written = File::open(part).and_then(|opened| {
        opened.sync_all()?;
        fs::rename(part, file)?;
        File::open(file.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
    });
    written.map_err(io(WHAT, file.display()))
}

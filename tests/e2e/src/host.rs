//! What a Coffer leaves on its host: everything that carries its tag.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::Program;

/// Everything on the host that carries this tag or lies in this state directory: namespaces,
/// interfaces, mounts, loop devices, cgroups, nft tables, processes, files. Processes and files
/// are told by what they belong to, so that a restart alone changes nothing.
pub fn traces(tag: &str, state_dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let dir = state_dir.display().to_string();
    let marks = |text: &str| text.contains(&format!("coffer-{tag}")) || text.contains(&dir);
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(tag) {
            found.insert(format!("namespace {name}"));
        }
    }
    for line in Program::new("ip", ["-o", "link"]).run()?.ok()?.lines() {
        if line.contains(tag) {
            found.insert(format!("interface {line}"));
        }
    }
    for line in Program::new("ip", ["route"]).run()?.ok()?.lines() {
        if line.contains(tag) {
            found.insert(format!("route {line}"));
        }
    }
    for line in Program::new("nft", ["list", "tables"]).run()?.ok()?.lines() {
        if line.contains(tag) {
            found.insert(format!("table {line}"));
        }
    }
    for line in fs::read_to_string("/proc/mounts")?.lines() {
        // The pool of mode `cow` stays mounted as long as the state directory is used.
        if marks(line) && !line.contains("/pool ") && !line.contains("/local/pool") {
            found.insert(format!("mount {line}"));
        }
    }
    for line in Program::new("losetup", ["-a"]).run()?.ok()?.lines() {
        if marks(line) && !line.contains("pool.img") {
            found.insert(format!("loop {line}"));
        }
    }
    for path in cgroups(tag)? {
        found.insert(format!("cgroup {path}"));
    }
    found.extend(members(tag, &dir)?);
    found.extend(files(state_dir)?);
    Ok(found)
}

/// What sandboxes' processes belong to: a control group or a namespace with the tag, whichever is
/// left of it, or a launcher of this state directory.
fn members(tag: &str, dir: &str) -> Result<BTreeSet<String>> {
    let mut spaces = BTreeMap::new();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(tag)
            && let Ok(facts) = entry.metadata()
        {
            spaces.insert(facts.ino(), name);
        }
    }
    let mut found = BTreeSet::new();
    for pid in processes()? {
        // What has ended and waits to be reaped, by an init that takes its time, has nothing more.
        if is_zombie(pid) {
            continue;
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mark = format!("coffer-{tag}.");
        if let Some((_, group)) = groups.split_once(&mark) {
            let group = group.lines().next().unwrap_or_default();
            found.insert(format!("process in group {group}"));
        }
        let space = fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| m.ino());
        if let Some(name) = space.ok().and_then(|inode| spaces.get(&inode)) {
            found.insert(format!("process in namespace {name}"));
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("sandbox-launch") && line.contains(dir) {
            found.insert(format!("process {line}"));
        }
    }
    Ok(found)
}

/// Files of the local provider below a state directory that belong to an object or to nothing:
/// all but tombstones, what is there once, and finished templates.
fn files(state_dir: &Path) -> Result<BTreeSet<String>> {
    const ONCE: [&str; 5] = [
        "pool-mode.json",
        "published-pool.json",
        "guarded-pool.json",
        "pool.img",
        "uids",
    ];
    let once = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_lock = ["pool-", "published-", "template-"]
            .iter()
            .any(|start| name.starts_with(start));
        let is_template = path.parent().is_some_and(|dir| dir.ends_with("templates"));
        ONCE.contains(&&*name)
            || (is_lock && path.parent().is_some_and(|dir| dir.ends_with("locks")))
            || (is_template && path.extension().is_some_and(|ending| ending == "img"))
    };
    let mut found = BTreeSet::new();
    let mut dirs = vec![state_dir.join("local")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_object = dir.ends_with("sandboxes") || dir.ends_with("making");
            if path.is_dir() && !path.ends_with("tombstones") {
                dirs.push(path.clone());
            }
            if !path.is_dir() && !once(&path) || is_object {
                found.insert(format!("file {}", path.display()));
            }
        }
    }
    // What was being written at the top: keys, tag, credentials.
    for entry in fs::read_dir(state_dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".new-") {
            found.insert(format!("file {name}"));
        }
    }
    Ok(found)
}

/// Groups of servers, whose names carry the tag.
fn cgroups(tag: &str) -> Result<Vec<String>> {
    let name = format!("coffer-{tag}.*");
    let line = ["/sys/fs/cgroup", "-type", "d", "-name", &name];
    let out = Program::new("find", line).run()?.out;
    Ok(out.lines().map(str::to_owned).collect())
}

/// Every process of a user, with its command line; what has ended and waits to be reaped is none.
pub fn processes_of_user(uid: u32) -> Result<Vec<(u32, String)>> {
    let is_theirs = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        ids.is_some_and(|ids| ids.split_whitespace().any(|id| id == uid.to_string()))
    };
    let all = processes()?.into_iter();
    let theirs = all.filter(|pid| is_theirs(*pid) && !is_zombie(*pid));
    let with_line = theirs.map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    });
    Ok(with_line.collect())
}

/// Process ids of sandboxes' first processes below this state directory's records, by the
/// engine's or agent's name: every process whose root carries the tag.
pub fn sandbox_processes(tag: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // Earlier Coffers, which upgrades begin with, had their groups in one directory.
        if [".", "/"]
            .map(|end| format!("coffer-{tag}{end}"))
            .iter()
            .any(|own| groups.contains(own))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Processes below `pid`, itself among them, that have this name.
pub fn children(pid: u32, name: &str) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::from([pid]);
    // Children have higher numbers than their parents only until numbers wrap: look till it is
    // the same twice.
    loop {
        let before = all.len();
        for other in processes()? {
            if parent(other).is_some_and(|p| all.contains(&p)) {
                all.insert(other);
            }
        }
        if all.len() == before {
            break;
        }
    }
    let is_named = |pid: &u32| {
        let found = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.trim() == name
    };
    all.retain(is_named);
    Ok(all)
}

fn processes() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
        .collect())
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A server as the local provider remembers it.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Its id.
    pub id: String,
    /// The instance it runs.
    pub instance_id: String,
    /// Its network.
    pub network_id: String,
    /// Its address there.
    pub address: String,
    /// User ids of its agent and its engine.
    pub uids: (u64, u64),
}

/// All servers of the Coffer in this state directory.
pub fn servers(state_dir: &Path) -> Result<Vec<ServerFacts>> {
    let local = state_dir.join("local");
    let read = |path: &Path| -> Result<Value> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for entry in fs::read_dir(local.join("servers"))? {
        let record = read(&entry?.path())?;
        let id = text(&record["id"]);
        let launch = read(&local.join("sandboxes").join(&id).join("launch.json"))?;
        let files = launch["files"].as_array().cloned().unwrap_or_default();
        let boot = files.iter().find(|f| f[0] == "/run/coffer/boot.json");
        let boot = boot.and_then(|f| f[1].as_str()).context("no boot data")?;
        let boot: Value = serde_json::from_str(boot)?;
        all.push(ServerFacts {
            instance_id: text(&boot["instance_id"]),
            network_id: text(&record["network_id"]),
            address: text(&record["network_address"]),
            uids: (
                record["uids"][0].as_u64().unwrap_or_default(),
                record["uids"][1].as_u64().unwrap_or_default(),
            ),
            id,
        });
    }
    Ok(all)
}

/// Host's pids of a server's processes whose command line has this word.
pub fn processes_of(tag: &str, server_id: &str, word: &str) -> Result<Vec<u32>> {
    let is_wanted = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        groups.contains(server_id) && line.contains(word)
    };
    let all = sandbox_processes(tag)?;
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// The one such process.
pub fn process_of(tag: &str, server_id: &str, word: &str) -> Result<u32> {
    let all = processes_of(tag, server_id, word)?;
    match all.as_slice() {
        [one] => Ok(*one),
        other => bail!("'{word}' of server {server_id}: {other:?}"),
    }
}

/// TCP ports on which a process listens, in its own network namespace.
pub fn listening_ports(pid: u32) -> Result<Vec<u16>> {
    let mut sockets = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let target = target.display().to_string();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'));
        sockets.extend(inode.map(str::to_owned));
    }
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Local address, state (0A listens) and inode.
            if let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields.as_slice()
                && sockets.contains(*inode)
            {
                let port = local.rsplit(':').next().unwrap_or_default();
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(ports.into_iter().collect())
}

/// IPv4 addresses of the host.
pub fn addresses() -> Result<Vec<String>> {
    let shown = Program::new("ip", ["-o", "-4", "addr"]).run()?.ok()?;
    let address = |line: &str| {
        let (_, rest) = line.split_once(" inet ")?;
        rest.split(['/', ' ']).next().map(str::to_owned)
    };
    Ok(shown.lines().filter_map(address).collect())
}

/// Hardware address of an instance in its tenant network.
pub fn hardware_address(netns: &str) -> Result<String> {
    let line = ["-n", netns, "-o", "link", "show", "eth0"];
    let shown = Program::new("ip", line).run()?.ok()?;
    let (_, rest) = shown.split_once("link/ether ").context("no ethernet")?;
    Ok(rest.split(' ').next().unwrap_or_default().to_owned())
}

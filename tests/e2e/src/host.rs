//! What a Coffer leaves on its host: everything that carries its tag.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::run::Program;

/// Everything on the host that carries this tag or lies in this state directory: namespaces,
/// interfaces, mounts, loop devices, cgroups, nft tables, processes.
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
    Ok(found)
}

/// Groups of servers below the ones that carry the tag.
fn cgroups(tag: &str) -> Result<Vec<String>> {
    let name = format!("coffer-{tag}");
    let line = [
        "/sys/fs/cgroup",
        "-type",
        "d",
        "-path",
        &format!("*/{name}/*"),
    ];
    let out = Program::new("find", line).run()?.out;
    Ok(out.lines().map(str::to_owned).collect())
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
        if groups.contains(&format!("coffer-{tag}/")) {
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

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

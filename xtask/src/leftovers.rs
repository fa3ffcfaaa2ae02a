//! What Coffer has made on this host and not taken away: the tests' last question.
//!
//! Only things with Coffer's name are looked at, and only those count that were not there before.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::process::Program;

/// Deepest cgroup looked at, below each controller.
const CGROUP_DEPTH_MAX: usize = 5;

/// Everything on this host that carries Coffer's name, each in words.
pub fn now() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let namespaces = names(Path::new("/run/netns"))
        .into_iter()
        .filter(|n| n.starts_with("coffer-"));
    found.extend(namespaces.map(|name| format!("network namespace {name}")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.filter(|point| point.contains("coffer"));
    found.extend(points.map(|point| format!("mount {point}")));
    cgroups(Path::new("/sys/fs/cgroup"), CGROUP_DEPTH_MAX, &mut found);
    found.extend(loops());
    found.extend(processes());
    let tables = Program::new("nft", &["list", "tables"])
        .output()
        .unwrap_or_default();
    let tables = tables.lines().filter(|line| line.contains("coffer"));
    found.extend(tables.map(|line| format!("nft {line}")));
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for name in names(dir) {
        let path = dir.join(&name);
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        if name.starts_with("coffer-") {
            found.insert(format!("cgroup {}", path.display()));
        } else {
            cgroups(&path, depth - 1, found);
        }
    }
}

fn loops() -> Vec<String> {
    let devices = names(Path::new("/sys/block"))
        .into_iter()
        .filter(|name| name.starts_with("loop"));
    let backing = |name: String| {
        let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
        file.contains("coffer")
            .then(|| format!("loop device {name} on {}", file.trim()))
    };
    devices.filter_map(backing).collect()
}

fn processes() -> Vec<String> {
    let pids = names(Path::new("/proc"))
        .into_iter()
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let ours = |pid: String| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim();
        (name == "coffer" || name == "coffer-guest").then(|| format!("process {pid} ({name})"))
    };
    pids.filter_map(ours).collect()
}

//! What Coffer has made on this host and not taken away: the tests' last question.
//!
//! Only things with Coffer's name are looked at, and only those count that were not there before.
//! A stopped Coffer keeps its pool mounted and its control groups, because instances go on serving;
//! [`remove`] takes these away from one that shall not come back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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
    let groups = cgroups("coffer-");
    found.extend(
        groups
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    found.extend(loops());
    found.extend(processes());
    let tables = Program::new("nft", &["list", "tables"])
        .output()
        .unwrap_or_default();
    let tables = tables.lines().filter(|line| line.contains("coffer"));
    found.extend(tables.map(|line| format!("nft {line}")));
    found
}

/// Takes away what a stopped Coffer without instances still has, and its state directory.
pub fn remove(state: &Path) -> Result<()> {
    let tag = fs::read_to_string(state.join("tag")).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(state)).collect();
    points.sort();
    for point in points.into_iter().rev() {
        Program::new("umount", &[point]).output()?;
    }
    for (device, file) in loop_files() {
        if Path::new(&file).starts_with(state) {
            Program::new("losetup", &["--detach", &format!("/dev/{device}")]).output()?;
        }
    }
    // Without a tag nothing was made, and every Coffer's name would fit.
    let groups = if tag.trim().is_empty() {
        Vec::new()
    } else {
        cgroups(&named(&tag))
    };
    for group in groups {
        fs::remove_dir(&group).with_context(|| format!("remove {}", group.display()))?;
    }
    let arguments = [
        "-rf".as_ref(),
        "--one-file-system".as_ref(),
        state.as_os_str(),
    ];
    Program::new("rm", &arguments).output().map(|_| ())
}

fn named(tag: &str) -> String {
    format!("coffer-{}", tag.trim())
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

/// Control groups whose name begins so; not those inside them.
fn cgroups(beginning: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(PathBuf::from("/sys/fs/cgroup"), CGROUP_DEPTH_MAX)];
    while let Some((dir, depth)) = waiting.pop() {
        for name in names(&dir) {
            let path = dir.join(&name);
            if !path.is_dir() || path.is_symlink() {
                continue;
            }
            if name.starts_with(beginning) {
                found.push(path);
            } else if depth > 1 {
                waiting.push((path, depth - 1));
            }
        }
    }
    found
}

fn loops() -> Vec<String> {
    let ours = loop_files()
        .into_iter()
        .filter(|(_, file)| file.contains("coffer"));
    ours.map(|(device, file)| format!("loop device {device} on {file}"))
        .collect()
}

/// Loop devices in use, and their files.
fn loop_files() -> Vec<(String, String)> {
    let devices = names(Path::new("/sys/block"))
        .into_iter()
        .filter(|name| name.starts_with("loop"));
    let backing = |name: String| {
        let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
        Some((name, file.trim().to_owned()))
    };
    devices.filter_map(backing).collect()
}

fn processes() -> Vec<String> {
    let pids = names(Path::new("/proc"))
        .into_iter()
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let ours = |pid: String| {
        // An ended process whose parent has not yet asked for its end holds nothing any more.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        if status.contains("State:\tZ") {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim();
        (name == "coffer" || name == "coffer-guest").then(|| format!("process {pid} ({name})"))
    };
    pids.filter_map(ours).collect()
}

//! What Coffer has made on this host and not taken away: the tests' last question.
//!
//! Only things with Coffer's name are looked at, and only those count that were not there before.
//! A stopped Coffer keeps its pool mounted and its control groups, because instances go on serving;
//! [`remove`] takes these away from one that shall not come back, and [`wipe`] its instances, too,
//! when nobody is left to ask it to delete them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Program, wait_for};

/// Deepest cgroup looked at, below each controller.
const CGROUP_DEPTH_MAX: usize = 5;
/// Longest time for what was killed to be gone, and for the kernel to let its volumes go.
const WIPE_MAX: Duration = Duration::from_secs(30);
/// Names of programs that are ended with the state directory that they were given.
const PROGRAMS: &[&str] = &[
    "coffer",
    "coffer-guest",
    "held_links",
    "seed_instances",
    "step_overhead",
];

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
        remove_group(&group)?;
    }
    let arguments = [
        "-rf".as_ref(),
        "--one-file-system".as_ref(),
        state.as_os_str(),
    ];
    Program::new("rm", &arguments).output().map(|_| ())
}

/// Ends everything of the Coffer in this state directory, its instances and whatever was started
/// by hand beside them, and takes it away.
pub fn wipe(state: &Path) -> Result<()> {
    let tag = fs::read_to_string(state.join("tag")).unwrap_or_default();
    let tag = tag.trim();
    end(|| members(state, tag)).with_context(|| format!("end what uses {}", state.display()))?;
    // Without a tag nothing was made, and every Coffer's name would fit.
    if !tag.is_empty() {
        let begin = format!("coffer-{tag}-");
        let namespaces = names(Path::new("/run/netns"));
        for name in namespaces.iter().filter(|name| name.starts_with(&begin)) {
            remove_namespace(name)?;
        }
        remove_rules(tag)?;
    }
    let guarded = fs::read_to_string(state.join("local/guarded-pool.json")).unwrap_or_default();
    let pool = guarded.trim().trim_matches('"');
    if !pool.is_empty() {
        // It may have been taken away before.
        Program::new("ip", &["route", "del", "unreachable", pool]).succeeds();
    }
    let is_removed = || remove(state).is_ok().then_some(());
    wait_for("the end of its mounts", WIPE_MAX, is_removed).or_else(|_| remove(state))
}

/// Ends what runs in a network namespace, and removes it.
pub fn remove_namespace(name: &str) -> Result<()> {
    end(|| {
        let listed = Program::new("ip", &["netns", "pids", name]).output();
        let listed = listed.unwrap_or_default();
        listed.split_whitespace().map(str::to_owned).collect()
    })?;
    Program::new("ip", &["netns", "del", name])
        .output()
        .map(drop)
}

/// Kills processes until there are none.
fn end(processes: impl Fn() -> Vec<String>) -> Result<()> {
    wait_for("the end of processes", WIPE_MAX, || {
        let left = processes();
        for pid in &left {
            // It may have ended by itself.
            Program::new("kill", &["-KILL", pid]).succeeds();
        }
        left.is_empty().then_some(())
    })
}

/// Processes that use a state directory: Coffer's own programs, what runs in its control groups,
/// and what has its root in there.
fn members(state: &Path, tag: &str) -> Vec<String> {
    let group = format!("/{}", named(tag));
    let dir = state.display().to_string();
    let is_member = |pid: &String| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
        let is_given = || {
            text("cmdline")
                .split('\0')
                .any(|word| word.starts_with(&dir))
        };
        let is_by_hand = || text("cmdline").split('\0').any(|word| word == "by-hand");
        let is_ours = || PROGRAMS.contains(&text("comm").trim()) || is_by_hand();
        let is_inside = || {
            let root = fs::read_link(format!("/proc/{pid}/root"));
            root.is_ok_and(|root| root.starts_with(state))
        };
        let is_grouped = !tag.is_empty() && text("cgroup").contains(&group);
        is_grouped || is_inside() || (is_ours() && is_given())
    };
    let all = names(Path::new("/proc")).into_iter();
    let all = all.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    all.filter(is_member).collect()
}

/// Removes the tables of packet rules that carry the tag.
fn remove_rules(tag: &str) -> Result<()> {
    let wanted = format!("coffer_{tag}");
    let tables = Program::new("nft", &["list", "tables"]).output()?;
    for line in tables.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["table", family, name] = words[..]
            && name == wanted
        {
            Program::new("nft", &["delete", "table", family, name]).output()?;
        }
    }
    Ok(())
}

/// Removes a control group and those inside it.
fn remove_group(group: &Path) -> Result<()> {
    for name in names(group) {
        let inner = group.join(name);
        if inner.is_dir() && !inner.is_symlink() {
            remove_group(&inner)?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("remove {}", group.display()))
}

/// What the names of a Coffer's control groups begin with.
fn named(tag: &str) -> String {
    format!("coffer-{}.", tag.trim())
}

/// Names of what lies in a directory; none when it is not there.
pub fn names(dir: &Path) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_coffer_left_is_taken_away() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let state = dir.path().join("state");
        fs::create_dir_all(state.join("pool")).unwrap();
        let pool = state.join("pool").display().to_string();
        let mount = ["-t", "tmpfs", "tmpfs", pool.as_str()];
        Program::new("mount", &mount).output().unwrap();
        let root = state.join("pool/root");
        fs::create_dir(&root).unwrap();
        // As an engine by hand: only its root tells whose it is.
        let words = ["--root", root.to_str().unwrap(), "sleep", "60"];
        let bind = ["/usr", "/lib", "/lib64", "/bin"].map(|from| {
            format!(
                "mkdir -p {0}{from} && mount --bind {from} {0}{from}",
                root.display()
            )
        });
        let script = format!("{} && exec unshare {}", bind.join(" && "), words.join(" "));
        let words = ["--mount", "--propagation", "private", "sh", "-c", &script];
        let started = Program::new("unshare", &words);
        let mut child = started.start(&dir.path().join("log")).unwrap();
        let is_inside = || (!members(&state, "").is_empty()).then_some(());
        wait_for("the process", WIPE_MAX, is_inside).unwrap();
        wipe(&state).unwrap();
        assert!(!state.exists());
        child.wait().unwrap();
    }
}

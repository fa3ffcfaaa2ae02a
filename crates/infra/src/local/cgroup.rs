//! Limits and process tracking by control groups, in both versions of the kernel's interface.
//!
//! A group is a list of directories: one per controller in version 1 (below the group that Coffer
//! itself runs in), one in all in version 2 (below the root, so that a service manager that ends
//! Coffer's own group leaves instances alone). No directory holds all of ours: each level of groups
//! costs a database 1 to 2% of its writes, because processes that wake each other are weighed
//! against one another level by level. The directories are kept in the server's record; what can be
//! done with one is told by the files in it, which is also how the tests work on a tree made of
//! plain files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_core::units::{BytesPerSecond, IoLimits, Iops};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::wait_until;
use super::device::Device;
use super::failure::{io as failed, rejected, transient};
use crate::error::Result;
use crate::provider::Limits;

/// Controllers that are used, as version 1 and version 2 call them.
const CONTROLLERS: [(&str, &str); 4] = [
    ("memory", "memory"),
    ("cpu", "cpu"),
    ("pids", "pids"),
    ("blkio", "io"),
];
/// A file that says that a kernel can limit I/O, not only count it: of a version 1 tree, and of a
/// version 2 group.
const THROTTLES: (&str, &str) = ("blkio.throttle.write_bps_device", "io.max");
/// LIMIT: processes and threads of one sandbox.
pub(super) const TASKS_MAX: u32 = 4096;
/// Period over which CPU time is shared out; unit: microseconds.
const PERIOD_US: u64 = 100_000;
/// What one process weighs, in version 1 and in version 2; there are bounds to both.
const WEIGHTS: [(&str, u64, u64); 2] = [("cpu.shares", 1024, 262_144), ("cpu.weight", 100, 10_000)];
/// How many times another process may take away a group before what is in it was seen.
const SNATCHED_MAX: u32 = 4;
/// How long processes may take to die of SIGKILL, and their group to be removable.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Which interface limits are set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// One tree per controller.
    V1,
    /// One tree for all.
    V2,
    /// No memory controller: limits are not enforced.
    None,
}

/// A directory that our groups are made in, and what the tree that it is in limits.
#[derive(Debug, Clone)]
struct Tree {
    dir: PathBuf,
    controllers: Vec<String>,
}

/// Where groups are made on this host.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    version: Version,
    /// What the names of our groups begin with, before a dot.
    prefix: String,
    trees: Vec<Tree>,
    missing: Vec<String>,
    refused: Vec<String>,
}

impl Groups {
    /// Looks at this host; the names of all our groups begin with `prefix`.
    pub(super) fn detect(prefix: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::from_texts(&own, &mounts, prefix)
    }

    /// As [`Self::detect`], from the texts of `/proc/self/cgroup` and `/proc/self/mounts`.
    pub(super) fn from_texts(own: &str, mounts: &str, prefix: &str) -> Self {
        let mounted: Vec<(&str, &str, &str)> = mounts.lines().filter_map(cgroup_mount).collect();
        let unified = mounted
            .iter()
            .find(|(kind, ..)| *kind == "cgroup2")
            .map(|(_, at, _)| *at);
        let mut trees = Vec::new();
        let mut missing = Vec::new();
        for (controller, _) in CONTROLLERS {
            match base_of(&mounted, own, controller) {
                Some(dir) => trees.push(Tree {
                    dir,
                    controllers: vec![controller.to_owned()],
                }),
                None => missing.push(controller.to_owned()),
            }
        }
        if !missing.iter().any(|m| m == "memory") {
            // The unified tree has no controllers then, and kills a whole group at once.
            trees.extend(unified.map(|at| Tree {
                dir: below(at, own_path(own, "")),
                controllers: Vec::new(),
            }));
            return Self {
                version: Version::V1,
                prefix: prefix.to_owned(),
                trees,
                missing,
                refused: Vec::new(),
            };
        }
        match unified {
            Some(at) => Self::unified(Path::new(at), prefix),
            None => Self {
                version: Version::None,
                prefix: prefix.to_owned(),
                trees: Vec::new(),
                missing,
                refused: Vec::new(),
            },
        }
    }

    fn unified(at: &Path, prefix: &str) -> Self {
        let offered = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        let has = |controller: &str| offered.split_whitespace().any(|o| o == controller);
        let missing: Vec<String> = CONTROLLERS
            .iter()
            .filter(|(_, controller)| !has(controller))
            .map(|(_, controller)| (*controller).to_owned())
            .collect();
        let version = if missing.iter().any(|m| m == "memory") {
            Version::None
        } else {
            Version::V2
        };
        let offered = CONTROLLERS.iter().filter(|(_, name)| has(name));
        let tree = Tree {
            dir: at.to_owned(),
            controllers: offered.map(|(_, name)| (*name).to_owned()).collect(),
        };
        Self {
            version,
            prefix: prefix.to_owned(),
            trees: vec![tree],
            missing,
            refused: Vec::new(),
        }
    }

    /// Which interface is in use.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// Controllers that this host does not have.
    pub(super) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Controllers that the kernel refused when [`Self::try_out`] asked, each with its reason.
    pub(super) fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Why I/O cannot be limited in these groups; `None` where it can. Until [`Self::try_out`] has
    /// asked it is what the controllers' names promise.
    pub(super) fn io_missing(&self) -> Option<String> {
        if self.version == Version::None {
            return Some("this host has no memory controller, and so no groups".to_owned());
        }
        if let Some(controller) = self.missing.iter().find(|one| is_io(one)) {
            return Some(format!(
                "this host has no {controller} controller that limits"
            ));
        }
        let refused = self.refused.iter().find(|one| is_io(one))?;
        Some(format!("{refused}: the kernel does not let it be used"))
    }

    /// What of flavors cannot be limited in these groups, each with the reason.
    pub(super) fn not_enforced(&self) -> Vec<String> {
        if self.version == Version::None {
            return vec!["memory and CPU: this host has no memory controller".to_owned()];
        }
        let (missing, refused) = of_flavors(&self.missing, &self.refused);
        let mut told = Vec::new();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            told.push(format!("{missing}: this host lacks these controllers"));
        }
        for one in refused {
            told.push(format!("{one}: the kernel does not let it be used"));
        }
        told
    }

    /// Learns what the kernel refuses although it is there: only asking tells. Trees in which no
    /// group can be made, as most containers see them and whoever is not root, are left alone.
    pub(super) fn try_out(&mut self) {
        let mut usable = Vec::new();
        for tree in std::mem::take(&mut self.trees) {
            let is_version_2 = self.version == Version::V2;
            let handed = match is_version_2 {
                true => hand_down(&tree.dir, &self.missing, |file, word| fs::write(file, word)),
                false => Vec::new(),
            };
            let probe = tree.dir.join(self.name_of("probe"));
            match try_making(&probe, is_version_2) {
                Ok(has_throttles) => {
                    self.refused.extend(handed);
                    if is_version_2 && !has_throttles && self.io_missing().is_none() {
                        self.missing.push("io".to_owned());
                    }
                    usable.push(tree);
                }
                Err(why) => {
                    let told = tree.controllers.iter();
                    self.refused
                        .extend(told.map(|one| format!("{one} ({why})")));
                }
            }
        }
        self.trees = usable;
    }

    /// Makes the group of a server with its limits; returns its directories.
    pub(super) fn ensure(&self, server: &str, limits: Limits) -> Result<Vec<PathBuf>> {
        let what = "make control group";
        let mut groups = Vec::new();
        for tree in &self.trees {
            if self.version == Version::V2 {
                // What is refused is known since the start; what is left is enforced.
                hand_down(&tree.dir, &self.missing, |file, word| fs::write(file, word));
            }
            let dir = tree.dir.join(self.name_of(server));
            fs::create_dir_all(&dir).map_err(failed(what, dir.display()))?;
            groups.push(dir);
        }
        set_limits(&groups, limits)?;
        Ok(groups)
    }

    /// Which of our groups exist, by what they were made for.
    pub(super) fn list(&self) -> Vec<String> {
        let begin = self.name_of("");
        let mut names: Vec<String> = self
            .trees
            .iter()
            .filter_map(|tree| fs::read_dir(&tree.dir).ok())
            .flat_map(Iterator::flatten)
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .filter_map(|name| Some(name.strip_prefix(&begin)?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Directories that a server's group would have here, whether they exist or not.
    pub(super) fn of(&self, server: &str) -> Vec<PathBuf> {
        let name = self.name_of(server);
        self.trees.iter().map(|tree| tree.dir.join(&name)).collect()
    }

    fn name_of(&self, server: &str) -> String {
        format!("{}.{server}", self.prefix)
    }
}

/// Sets a group's limits; memory below what is in use is refused.
pub(super) fn set_limits(groups: &[PathBuf], limits: Limits) -> Result<()> {
    let memory = u64::from(limits.memory_mib) << 20;
    let quota = PERIOD_US * u64::from(limits.vcpus);
    for group in groups {
        if group.join("memory.max").exists() {
            refuse_below_use(group, memory)?;
        }
        set(group, "memory.limit_in_bytes", &memory.to_string())?;
        set(group, "memory.max", &memory.to_string())?;
        // The limit is meant for all memory; what is swapped out would not count.
        set(group, "memory.swappiness", "0")?;
        set(group, "memory.swap.max", "0")?;
        set(group, "memory.oom.group", "0")?;
        set(group, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
        set(group, "cpu.cfs_quota_us", &quota.to_string())?;
        set(group, "cpu.max", &format!("{quota} {PERIOD_US}"))?;
        set_weight(group, limits.vcpus.into())?;
        set(group, "pids.max", &TASKS_MAX.to_string())?;
    }
    Ok(())
}

/// Sets what a group weighs when processors are scarce, in processes.
fn set_weight(group: &Path, processes: u64) -> Result<()> {
    for (file, one, most) in WEIGHTS {
        set(group, file, &(processes * one).min(most).to_string())?;
    }
    Ok(())
}

/// Sets how fast a group may read from and write to a device; what has no limit is let free.
pub(super) fn set_io_limits(groups: &[PathBuf], device: Device, io: &IoLimits) -> Result<()> {
    let (bytes, iops) = (BytesPerSecond::get, Iops::get);
    let limits = [
        ("read_bps", "rbps", io.read_bytes_sec.map(bytes)),
        ("write_bps", "wbps", io.write_bytes_sec.map(bytes)),
        ("read_iops", "riops", io.read_iops_sec.map(iops)),
        ("write_iops", "wiops", io.write_iops_sec.map(iops)),
    ];
    let words = limits.map(|(_, key, limit)| match limit {
        Some(limit) => format!("{key}={limit}"),
        None => format!("{key}=max"),
    });
    for group in groups {
        for (file, _, limit) in limits {
            // Version 1 takes 0 for no limit.
            let value = format!("{device} {}", limit.unwrap_or(0));
            set(group, &format!("blkio.throttle.{file}_device"), &value)?;
        }
        set(group, "io.max", &format!("{device} {}", words.join(" ")))?;
    }
    Ok(())
}

/// What of missing and refused controllers flavors are limited by, and not volume types.
pub(super) fn of_flavors<'a>(
    missing: &'a [String],
    refused: &'a [String],
) -> (Vec<&'a str>, Vec<&'a str>) {
    let others = |list: &'a [String]| {
        let names = list.iter().map(String::as_str);
        names.filter(|one| !is_io(one)).collect()
    };
    (others(missing), others(refused))
}

/// Whether this is the controller of I/O, with or without the reason why it was refused.
pub(super) fn is_io(one: &str) -> bool {
    matches!(one.split(' ').next(), Some("blkio" | "io"))
}

/// Pids of all processes in the group.
pub(super) fn pids(groups: &[PathBuf]) -> Vec<i32> {
    let mut all: Vec<i32> = groups
        .iter()
        .filter_map(|g| fs::read_to_string(g.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|l| l.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// How many processes of the group the kernel has killed because its memory was full.
pub(super) fn memory_kills(groups: &[PathBuf]) -> u64 {
    let counters = ["memory.oom_control", "memory.events"];
    let texts = groups
        .iter()
        .flat_map(|g| counters.map(|file| fs::read_to_string(g.join(file)).unwrap_or_default()));
    texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|l| l.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
                .collect::<Vec<_>>()
        })
        .sum()
}

/// Kills every process in the group; true when none is left.
pub(super) fn kill_all(groups: &[PathBuf]) -> bool {
    for group in groups.iter().filter(|g| g.join("cgroup.kill").exists()) {
        // Where it does not work, the signals below do.
        fs::write(group.join("cgroup.kill"), "1").ok();
    }
    wait_until(END_LIMIT, || {
        let left = pids(groups);
        for pid in &left {
            // It may have died since.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        left.is_empty()
    })
}

/// Removes the group's directories; its processes must be gone.
pub(super) fn remove(groups: &[PathBuf]) -> Result<()> {
    for group in groups {
        let mut last = None;
        let removed = wait_until(END_LIMIT, || match fs::remove_dir(group) {
            // Of a Coffer that could write here: an empty group is all that stays.
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                tracing::warn!(group = %group.display(), "a control group stays: {e}");
                true
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                last = Some(e);
                false
            }
            _ => true,
        });
        if !removed {
            let why = last.map(|e| e.to_string()).unwrap_or_default();
            return Err(transient(
                "remove control group",
                format!("{}: {why}", group.display()),
            ));
        }
        if let Some(parent) = group.parent().filter(|parent| is_earlier_parent(parent)) {
            // One that still holds groups stays.
            fs::remove_dir(parent).ok();
        }
    }
    Ok(())
}

/// Whether this is a directory that an earlier Coffer had all its groups in.
fn is_earlier_parent(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("coffer-") && !name.contains('.')
}

/// Makes a group and removes it again; true if it has version 2's file for limits on I/O, where
/// that is looked for. Another role of Coffer's may be trying too, and take it away before it was
/// looked at: hence the repetition.
fn try_making(probe: &Path, looks_for_throttles: bool) -> io::Result<bool> {
    let tries = if looks_for_throttles { SNATCHED_MAX } else { 1 };
    let mut has_throttles = false;
    for _ in 0..tries {
        match fs::create_dir(probe) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !probe.is_file() => {}
            made => made?,
        }
        has_throttles = probe.join(THROTTLES.1).exists();
        // One that stays is removed by the next try.
        fs::remove_dir(probe).ok();
        if has_throttles {
            break;
        }
    }
    Ok(has_throttles)
}

/// Lets the groups in `dir` have the controllers that are there. Returns what the kernel refused,
/// with its reason: the root of a container's namespace that holds processes hands down nothing
/// (EBUSY).
fn hand_down(
    dir: &Path,
    missing: &[String],
    write: impl Fn(&Path, &str) -> io::Result<()>,
) -> Vec<String> {
    let file = dir.join("cgroup.subtree_control");
    let is_there = |(_, name): &&(&str, &str)| !missing.iter().any(|one| one == name);
    let there = CONTROLLERS.iter().filter(is_there);
    let handed = there.filter_map(|(_, controller)| {
        let refused = write(&file, &format!("+{controller}")).err()?;
        Some(format!("{controller} ({refused})"))
    });
    handed.collect()
}

/// Version 2 kills to get below a new limit where version 1 refuses: so refuse first.
fn refuse_below_use(group: &Path, memory: u64) -> Result<()> {
    let text = fs::read_to_string(group.join("memory.current")).unwrap_or_default();
    let used: u64 = text.trim().parse().unwrap_or(0);
    if used > memory {
        return Err(below_use(group, memory));
    }
    Ok(())
}

fn below_use(group: &Path, memory: u64) -> crate::ProviderError {
    let mib = memory >> 20;
    let why = format!(
        "{}: more than {mib} MiB are in use: stop the server or choose a larger flavor",
        group.display()
    );
    rejected("set memory limit", why)
}

/// Writes a limit where the group has the file for it.
fn set(group: &Path, file: &str, value: &str) -> Result<()> {
    let path = group.join(file);
    if !path.exists() {
        return Ok(());
    }
    let is_memory = file.starts_with("memory.");
    match fs::write(&path, value) {
        Err(e) if is_memory && e.raw_os_error() == Some(Errno::EBUSY as i32) => {
            Err(below_use(group, value.parse().unwrap_or(0)))
        }
        other => other.map_err(failed("set limit", path.display())),
    }
}

/// Type, mount point and options of a control group's mount.
fn cgroup_mount(line: &str) -> Option<(&str, &str, &str)> {
    let mut fields = line.split(' ').skip(1);
    let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
    kind.starts_with("cgroup").then_some((kind, at, options))
}

/// Our own path in the tree of a controller; the unified tree has no name.
fn own_path<'a>(own: &'a str, controller: &str) -> &'a str {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
        .find(|(names, _)| names.split(',').any(|n| n == controller))
        .map_or("/", |(_, path)| path)
}

/// Our own place in the tree of a version 1 controller, if there is one that can limit.
fn base_of(trees: &[(&str, &str, &str)], own: &str, controller: &str) -> Option<PathBuf> {
    let has = |options: &str| options.split(',').any(|o| o == controller);
    let tree = trees
        .iter()
        .find(|(kind, _, options)| *kind == "cgroup" && has(options));
    let base = tree.map(|(_, at, _)| below(at, own_path(own, controller)))?;
    let can_limit = !is_io(controller) || base.join(THROTTLES.0).exists();
    can_limit.then_some(base)
}

fn below(at: &str, own: &str) -> PathBuf {
    let own = own.trim_start_matches('/');
    let base = Path::new(at).join(own);
    // In a container the own path may name what is not visible here.
    if base.is_dir() {
        base
    } else {
        PathBuf::from(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        memory_mib: 512,
        vcpus: 2,
        io: IoLimits::NONE,
    };

    #[test]
    fn finds_version_1_trees_and_our_own_place_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        fs::create_dir_all(dir.path().join("memory/own")).unwrap();
        let mounts = format!(
            "cgroup {root}/memory cgroup rw,memory 0 0\ncgroup {root}/cpu cgroup rw,cpu 0 0\n\
             cgroup2 {root}/unified cgroup2 rw 0 0\n"
        );
        let own = "4:memory:/own\n1:cpu:/\n0::/\n";
        let groups = Groups::from_texts(own, &mounts, "coffer-t");
        assert_eq!(groups.version(), Version::V1);
        assert_eq!(groups.missing(), ["pids", "blkio"]);
        let dirs = groups.of("s");
        assert_eq!(dirs[0], dir.path().join("memory/own/coffer-t.s"));
        assert_eq!(dirs[1], dir.path().join("cpu/coffer-t.s"));
        assert_eq!(dirs[2], dir.path().join("unified/coffer-t.s"));
    }

    #[test]
    fn version_2_sets_limits_on_a_tree_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
        let groups = Groups::from_texts("0::/system.slice/coffer.service\n", &mounts, "coffer-t");
        assert_eq!(groups.version(), Version::V2);
        let own = root.join("coffer-t.s");
        fs::create_dir_all(&own).unwrap();
        for file in ["memory.max", "cpu.max", "pids.max", "cpu.weight"] {
            fs::write(own.join(file), "max").unwrap();
        }
        fs::write(own.join("memory.current"), "1048576\n").unwrap();
        let dirs = groups.ensure("s", LIMITS).unwrap();
        assert_eq!(dirs, std::slice::from_ref(&own));
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("memory.max"), (512_u64 << 20).to_string());
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("pids.max"), "4096");
        assert_eq!(read("cpu.weight"), "200");
        let handed = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap();
        assert_eq!(handed, "+io");
        fs::write(own.join("memory.current"), (600_u64 << 20).to_string()).unwrap();
        let error = set_limits(&dirs, LIMITS).unwrap_err();
        assert!(error.to_string().contains("512 MiB are in use"), "{error}");
        assert_eq!(groups.list(), ["s"]);
    }

    #[test]
    fn groups_of_an_earlier_coffer_go_with_their_parent() {
        let dir = tempfile::tempdir().unwrap();
        let own = |name: &str| dir.path().join("coffer-t").join(name);
        for name in ["s", "t"] {
            fs::create_dir_all(own(name)).unwrap();
        }
        remove(&[own("s")]).unwrap();
        assert!(own("t").exists());
        remove(&[own("t")]).unwrap();
        assert!(!dir.path().join("coffer-t").exists() && dir.path().exists());
    }

    #[test]
    fn what_cannot_be_written_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        fs::write(dir.path().join("coffer-t.probe"), "").unwrap();
        let mut groups = unified(dir.path(), "cpu io memory pids\n");
        groups.try_out();
        assert_eq!(groups.refused().len(), 4, "{groups:?}");
    }

    /// A tree of plain files whose root offers these controllers.
    fn unified(root: &Path, controllers: &str) -> Groups {
        fs::write(root.join("cgroup.controllers"), controllers).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
        Groups::from_texts("0::/\n", &mounts, "coffer-t")
    }

    #[test]
    fn a_controller_that_is_missing_is_not_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut groups = unified(dir.path(), "memory pids\n");
        groups.try_out();
        assert_eq!(groups.version(), Version::V2);
        assert_eq!(groups.missing(), ["cpu", "io"]);
        assert_eq!(groups.refused(), <[String; 0]>::default());
        let asked = std::cell::RefCell::new(Vec::new());
        hand_down(dir.path(), groups.missing(), |_, word| {
            asked.borrow_mut().push(word.to_owned());
            Ok(())
        });
        assert_eq!(asked.into_inner(), ["+memory", "+pids"]);
    }

    #[test]
    fn what_the_kernel_refuses_is_told_and_the_rest_is_handed_down() {
        let asked = std::cell::RefCell::new(Vec::new());
        let refused = hand_down(Path::new("/tree"), &[], |file, word| {
            asked.borrow_mut().push((file.to_owned(), word.to_owned()));
            match word {
                "+cpu" => Err(io::Error::from_raw_os_error(Errno::EBUSY as i32)),
                _ => Ok(()),
            }
        });
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0].starts_with("cpu (") && refused[0].contains("busy"),
            "{refused:?}"
        );
        let file = PathBuf::from("/tree/cgroup.subtree_control");
        let words = ["+memory", "+cpu", "+pids", "+io"];
        let expected = words.map(|word| (file.clone(), word.to_owned()));
        assert_eq!(asked.into_inner(), expected);
    }

    #[test]
    fn a_root_that_hands_down_nothing_still_has_groups() {
        let dir = tempfile::tempdir().unwrap();
        // A directory in its place cannot be written, like a file that answers EBUSY.
        fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        let mut groups = unified(dir.path(), "cpu io memory pids\n");
        groups.try_out();
        let told = groups.refused().join(", ");
        let io = groups.io_missing().unwrap();
        assert!(io.contains("io (") && io.contains("let it be used"), "{io}");
        for (_, controller) in CONTROLLERS {
            assert!(told.contains(controller), "{told}");
        }
        assert!(
            !dir.path().join("coffer-t.probe").exists(),
            "trying leaves nothing"
        );
        let made = groups.ensure("s", LIMITS).unwrap();
        assert!(made[0].is_dir() && !made[0].join("memory.max").exists());
    }

    #[test]
    fn trees_in_which_no_group_can_be_made_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        fs::create_dir_all(dir.path().join("cpu")).unwrap();
        // A file in the place of the tree refuses everybody, root as well.
        fs::write(dir.path().join("memory"), "").unwrap();
        let mounts = format!(
            "cgroup {root}/memory cgroup ro,memory 0 0\ncgroup {root}/cpu cgroup rw,cpu 0 0\n"
        );
        let mut groups = Groups::from_texts("4:memory:/\n1:cpu:/\n", &mounts, "coffer-t");
        groups.try_out();
        assert_eq!(groups.refused().len(), 1);
        assert!(groups.refused()[0].starts_with("memory ("), "{groups:?}");
        let made = groups.ensure("s", LIMITS).unwrap();
        assert_eq!(made, [dir.path().join("cpu/coffer-t.s")]);
    }

    #[test]
    fn io_is_not_limited_where_no_group_of_it_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        for tree in ["memory", "blkio"] {
            fs::create_dir(dir.path().join(tree)).unwrap();
        }
        let tree = dir.path().join("blkio");
        fs::write(tree.join(THROTTLES.0), "").unwrap();
        // A file in the place of our group refuses everybody, root as well.
        fs::write(tree.join("coffer-t.probe"), "").unwrap();
        let mounts = format!(
            "cgroup {root}/memory cgroup rw,memory 0 0\ncgroup {root}/blkio cgroup ro,blkio 0 0\n"
        );
        let mut groups = Groups::from_texts("4:memory:/\n1:blkio:/\n", &mounts, "coffer-t");
        assert_eq!(groups.io_missing(), None);
        groups.try_out();
        let why = groups.io_missing().unwrap();
        assert!(
            why.starts_with("blkio (") && why.contains("let it be used"),
            "{why}"
        );
        let flavors = groups.not_enforced();
        assert_eq!(flavors, ["cpu, pids: this host lacks these controllers"]);
        let made = groups.ensure("s", LIMITS).unwrap();
        assert_eq!(made, [dir.path().join("memory/coffer-t.s")]);

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("coffer-t.probe"), "").unwrap();
        let mut groups = unified(dir.path(), "cpu io memory pids\n");
        groups.try_out();
        let why = groups.io_missing().unwrap();
        assert!(why.starts_with("io ("), "{why}");
        assert_eq!(groups.not_enforced().len(), 3);
        assert_eq!(groups.ensure("s", LIMITS).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn says_so_where_nothing_can_be_limited() {
        assert_eq!(
            Groups::from_texts("", "", "coffer-t").version(),
            Version::None
        );
        let dir = tempfile::tempdir().unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", dir.path().display());
        let groups = Groups::from_texts("0::/\n", &mounts, "coffer-t");
        assert_eq!(groups.version(), Version::None);
        assert_eq!(groups.missing(), ["memory", "cpu", "pids", "io"]);
        assert!(groups.io_missing().unwrap().contains("no groups"));
    }

    fn limits() -> IoLimits {
        IoLimits {
            write_iops_sec: Iops::parse("test", 500).ok(),
            read_bytes_sec: BytesPerSecond::parse("test", 1 << 20).ok(),
            ..IoLimits::NONE
        }
    }

    /// A group of plain files.
    fn files(root: &Path, names: &[&str]) -> PathBuf {
        let group = root.join("s");
        fs::create_dir_all(&group).unwrap();
        for name in names {
            fs::write(group.join(name), "").unwrap();
        }
        group
    }

    #[test]
    fn version_2_limits_io_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let group = files(dir.path(), &["io.max"]);
        let device = Device::of(nix::sys::stat::makedev(7, 3));
        let set = |io: &IoLimits| {
            set_io_limits(std::slice::from_ref(&group), device, io).unwrap();
            fs::read_to_string(group.join("io.max")).unwrap()
        };
        let expected = "7:3 rbps=1048576 wbps=max riops=max wiops=500";
        assert_eq!(set(&limits()), expected);
        let lifted = "7:3 rbps=max wbps=max riops=max wiops=max";
        assert_eq!(set(&IoLimits::NONE), lifted);
        assert!(!group.join("blkio.throttle.read_bps_device").exists());
    }

    #[test]
    fn version_1_limits_io_in_four_files() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["read_bps", "write_bps", "read_iops", "write_iops"]
            .map(|name| format!("blkio.throttle.{name}_device"));
        let group = files(dir.path(), &names.each_ref().map(String::as_str));
        let device = Device::of(nix::sys::stat::makedev(7, 3));
        let set = |io: &IoLimits| {
            set_io_limits(std::slice::from_ref(&group), device, io).unwrap();
            let read = |name| fs::read_to_string(group.join(name)).unwrap();
            names.each_ref().map(read)
        };
        let expected = ["7:3 1048576", "7:3 0", "7:3 0", "7:3 500"];
        assert_eq!(set(&limits()), expected);
        assert_eq!(set(&IoLimits::NONE), ["7:3 0"; 4]);
        assert!(!group.join("io.max").exists());
    }

    #[test]
    fn a_kernel_that_only_counts_io_is_told_from_one_that_limits_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        fs::create_dir(dir.path().join("blkio")).unwrap();
        let mounts = ["memory", "cpu", "pids", "blkio"]
            .map(|name| format!("cgroup {root}/{name} cgroup rw,{name} 0 0\n"))
            .concat();
        let groups = || Groups::from_texts("", &mounts, "coffer-t");
        assert!(groups().io_missing().unwrap().contains("no blkio"));
        assert_eq!(groups().not_enforced(), Vec::<String>::new());
        fs::write(dir.path().join("blkio").join(THROTTLES.0), "").unwrap();
        assert_eq!(groups().io_missing(), None);
        let own = groups().of("s");
        assert!(
            own.contains(&dir.path().join("blkio/coffer-t.s")),
            "{own:?}"
        );

        let dir = tempfile::tempdir().unwrap();
        let tried = || {
            let mut groups = unified(dir.path(), "cpu io memory pids\n");
            groups.try_out();
            groups
        };
        assert!(tried().io_missing().unwrap().contains("no io"));
        assert_eq!(tried().not_enforced(), Vec::<String>::new());
        let probe = dir.path().join("coffer-t.probe");
        fs::create_dir_all(&probe).unwrap();
        fs::write(probe.join(THROTTLES.1), "").unwrap();
        assert_eq!(tried().io_missing(), None);
    }
}

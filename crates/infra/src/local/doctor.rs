//! What this host can and cannot do for the local provider, in words for its operator.
//!
//! Leaves nothing behind: a probe file without a name in the pool directory, and a control group
//! that is made, limited and removed.

use std::fs;
use std::path::Path;

use coffer_core::units::IoLimits;
use nix::sys::statvfs::statvfs;

use super::cgroup::{Groups, Version, is_io, of_flavors, remove};
use super::device::Device;
use super::host::NO_DISK;
use super::pool::{self, VolumeMode, can_reflink, unreserved};
use super::record::{Records, VolumeRecord, read_json};
use super::{LocalConfig, loops, process, relay, sys, world};
use crate::provider::Limits;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// It works; something could be better.
    Advice,
    /// It does not work until something is done.
    Problem,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// What that means for instances.
    pub means: String,
    /// What to do; empty if nothing.
    pub todo: String,
    /// How much it matters.
    pub level: Level,
}

/// Tools that are run, and the packages that carry them on Debian.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_admin", "xfsprogs"),
];
/// Capabilities that are needed: number and name.
const CAPABILITIES: [(u8, &str); 9] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (12, "NET_ADMIN"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
];
/// How volumes may be kept, and what that costs.
const MODES: [(&str, &str); 3] = [
    (
        "xfs",
        "instant snapshots and clones; commits cost about 6 % against the bare disk; needs an XFS \
         made with reflink=1",
    ),
    (
        "cow",
        "everything works anywhere; each commit passes two file systems and costs about four times \
         as much as on a real XFS pool",
    ),
    (
        "fast",
        "commits are as fast as the disk; no snapshots, no branches, and a new instance copies its \
         template",
    ),
];
/// Limits of the group that is made to see whether it can be.
const PROBE: Limits = Limits {
    memory_mib: 64,
    vcpus: 1,
    io: IoLimits::NONE,
};
const MOUNT_GROUPS: &str =
    "mount cgroup version 2 at /sys/fs/cgroup, or the version 1 controllers below it";
/// What helps when a controller is not there.
const ENABLE: &str =
    "enable what is missing in the kernel's command line or in the service manager";
/// What helps when the root hands down nothing, or no group can be made.
const FREE_ROOT: &str = "move the processes out of the root of the control groups into a group \
    below it (a container: run it with an init that does, or mount them writable and delegate a \
    group to it)";
/// Free space below which a finding is advice; unit: GiB.
const FREE_GIB_MIN: u64 = 10;

/// Looks at the host; blocks for some milliseconds.
pub fn doctor(config: &LocalConfig) -> Vec<Finding> {
    let mut findings = vec![pool(config)];
    findings.extend(groups(config));
    findings.push(landlock());
    findings.push(free_space(&config.state_dir));
    findings.extend(pool_file(config));
    if !config.pool_dir.starts_with(&config.state_dir) {
        findings.push(free_space(&config.pool_dir));
    }
    findings.extend(tools(config));
    findings.extend(privileges(config));
    findings.extend(files(config));
    findings
}

/// A finding that is as it should be.
pub fn good(what: impl Into<String>, means: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        means: means.into(),
        todo: String::new(),
        level: Level::Good,
    }
}

/// A finding that could be better.
pub fn advice(what: impl Into<String>, means: &str, todo: &str) -> Finding {
    let (means, todo) = (means.to_owned(), todo.to_owned());
    Finding {
        what: what.into(),
        means,
        todo,
        level: Level::Advice,
    }
}

/// A finding that keeps something from working.
pub fn problem(what: impl Into<String>, means: &str, todo: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        means: means.to_owned(),
        todo: todo.into(),
        level: Level::Problem,
    }
}

/// The mode that this state directory's volumes were made in.
fn kept_mode(config: &LocalConfig) -> Option<VolumeMode> {
    read_json(&config.state_dir.join("pool-mode.json"))
        .ok()
        .flatten()
}

fn pool(config: &LocalConfig) -> Finding {
    let kept = kept_mode(config);
    let has_reflink = can_reflink(nearest(&config.pool_dir));
    let asked = kept.unwrap_or(config.volume_mode);
    let name = config.pool_dir.display();
    match asked {
        VolumeMode::Directory => directories(config),
        VolumeMode::Auto if !loops::are_there() => directories(config),
        VolumeMode::Auto | VolumeMode::Xfs if has_reflink => {
            good(format!("volumes: mode xfs in {name}"), costs("xfs"))
        }
        VolumeMode::Xfs => problem(
            format!("volumes: mode xfs was asked for, {name} cannot share blocks"),
            &format!("no volume can be made\n{}", costs("xfs")),
            "mount an XFS made with reflink=1 there, or choose local.volume_mode cow or fast",
        ),
        VolumeMode::Auto | VolumeMode::Cow => advice(
            format!("volumes: mode cow, an XFS {}in a file", cow_size(config)),
            &costs("cow"),
            "for production put local.pool_dir on an XFS made with reflink=1",
        ),
        VolumeMode::Fast => advice(
            format!("volumes: mode fast in {name}"),
            &costs("fast"),
            "put local.pool_dir on an XFS made with reflink=1 to have both",
        ),
    }
}

/// What it means that volumes are directories; the ones that hold more than they should are named.
fn directories(config: &LocalConfig) -> Finding {
    let what = format!("volumes: mode directory in {}", config.pool_dir.display());
    // Opening makes directories, and looking must not.
    let records: Vec<VolumeRecord> = kept_mode(config)
        .and_then(|_| Records::open(&config.state_dir).ok()?.list().ok())
        .unwrap_or_default();
    let volumes = config.pool_dir.join("volumes");
    let over: Vec<String> = records
        .iter()
        .map(|r| (r, pool::allocated(&volumes.join(format!("{}.dir", r.id)))))
        .filter(|(r, used)| *used > r.size_bytes)
        .map(|(r, used)| format!("{} has {} of {} GiB", r.id, used >> 30, r.size_bytes >> 30))
        .collect();
    if !over.is_empty() {
        return problem(
            format!("{what}: over their size: {}", over.join(", ")),
            "volume sizes are not enforced: they take the space of the others",
            "delete data there or enlarge the volumes, and give this host loop devices",
        );
    }
    advice(
        what,
        "volume sizes are not enforced: one instance can fill the disk for all; no snapshots, no \
         branches, and a new instance copies its template",
        "modprobe loop, or give the container its loop devices, and use a new state directory; \
         there are none without root",
    )
}

/// The size of the pool file, as it is or as it is asked for, in words that end in a space.
fn cow_size(config: &LocalConfig) -> String {
    let made = fs::metadata(config.state_dir.join("pool.img")).map(|m| m.len() >> 30);
    match made.unwrap_or_else(|_| config.cow_pool_gib.into()) {
        0 => String::new(),
        gib => format!("of {gib} GiB "),
    }
}

/// A pool file that its disk does not hold in whole.
fn pool_file(config: &LocalConfig) -> Option<Finding> {
    let missing = unreserved(&config.state_dir.join("pool.img"));
    let gib = missing.div_ceil(1 << 30);
    (missing > 0).then(|| {
        advice(
            format!("volumes: {gib} GiB of the pool's file are not reserved on its disk"),
            "when that disk is full, instances get write errors",
            "free so much space there and start Coffer again; a file system that cannot reserve \
             (no fallocate) is no place for a pool",
        )
    })
}

/// What each mode costs, a line each; the one in use is marked, so that others can be weighed.
fn costs(in_use: &str) -> String {
    let line = |(mode, cost): &(&str, &str)| {
        let mark = if *mode == in_use { '*' } else { ' ' };
        format!("{mark} {mode:4} {cost}")
    };
    MODES.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether limits can be set, found out by setting some: what is there may still be refused.
fn groups(config: &LocalConfig) -> Vec<Finding> {
    let name = format!("coffer-{}-doctor-{}", config.tag, std::process::id());
    let mut groups = Groups::detect(&name);
    if groups.version() == Version::None {
        let unlimited = unlimited("no memory controller", MOUNT_GROUPS);
        return vec![unlimited, io_limited(config, &groups)];
    }
    groups.try_out();
    let tried = groups.ensure("probe", PROBE);
    let cleared = remove(&groups.of("probe"));
    match tried.and(cleared) {
        Err(error) => vec![problem(
            format!("limits: a control group cannot be made: {error}"),
            "no instance can be made",
            "mount the control groups writable (a container: delegate them to it)",
        )],
        Ok(()) => {
            let limited = limited(groups.version(), groups.missing(), groups.refused());
            vec![limited, io_limited(config, &groups)]
        }
    }
}

/// What of volume types' limits on I/O is enforced in groups that can be made.
fn io_limited(config: &LocalConfig, groups: &Groups) -> Finding {
    let unlimited = |why: &str, todo: &str| {
        advice(
            format!("I/O limits: {why}"),
            "a volume type's limits on operations and bytes a second are not enforced: one \
             instance can take the whole of a disk's throughput",
            todo,
        )
    };
    if let Some(why) = groups.io_missing() {
        let todo = match groups.version() {
            Version::None => MOUNT_GROUPS,
            Version::V1 | Version::V2 if groups.missing().iter().any(|one| is_io(one)) => ENABLE,
            Version::V1 | Version::V2 => FREE_ROOT,
        };
        return unlimited(&why, todo);
    }
    let asked = kept_mode(config).unwrap_or(config.volume_mode);
    let has_directories = match asked {
        VolumeMode::Directory => true,
        VolumeMode::Auto => !loops::are_there(),
        VolumeMode::Xfs | VolumeMode::Cow | VolumeMode::Fast => false,
    };
    if has_directories && Device::below(nearest(&config.pool_dir)).is_none() {
        return unlimited(NO_DISK, "put local.pool_dir on a disk's own file system");
    }
    let version = groups.version();
    let means = match version {
        Version::V1 => {
            "volume types' limits hold for what is read, and for what is written directly or \
             synced; what the kernel writes back later by itself is not limited: only version 2 \
             counts that"
        }
        Version::V2 | Version::None => "volume types' limits are enforced",
    };
    good(format!("I/O limits: control groups {version:?}"), means)
}

/// What of flavors can be limited in groups that can be made.
fn limited(version: Version, missing: &[String], refused: &[String]) -> Finding {
    let (missing, refused) = of_flavors(missing, refused);
    let (missing, told) = (missing.join(", "), refused.join(", "));
    if refused.iter().any(|one| one.starts_with("memory")) {
        let what =
            format!("control groups {version:?}, but the kernel does not let Coffer use {told}");
        return unlimited(&what, FREE_ROOT);
    }
    if !refused.is_empty() {
        return advice(
            format!(
                "limits: control groups {version:?}; the kernel does not let Coffer use {told}"
            ),
            "what these controllers limit is not enforced",
            FREE_ROOT,
        );
    }
    if !missing.is_empty() {
        return advice(
            format!("limits: control groups {version:?} without {missing}"),
            "what these controllers limit is not enforced",
            ENABLE,
        );
    }
    good(
        format!("limits: control groups {version:?}"),
        "flavors are enforced",
    )
}

fn unlimited(what: &str, todo: &str) -> Finding {
    advice(
        format!("limits: {what}"),
        "a flavor's memory and CPU are not enforced: one instance can starve the others",
        todo,
    )
}

fn landlock() -> Finding {
    match sys::landlock_version() {
        Some(version) => good(
            format!("landlock: version {version}"),
            "the engine is kept to its own files besides its user id",
        ),
        None => advice(
            "landlock: not in this kernel",
            "the engine is kept to its own files by its user id alone",
            "boot a kernel with landlock in its list of security modules",
        ),
    }
}

fn free_space(path: &Path) -> Finding {
    let dir = nearest(path);
    let Ok(facts) = statvfs(dir) else {
        return problem(
            format!("space: {} cannot be looked at", dir.display()),
            "nothing can be stored",
            "make the state directory readable for the user that runs coffer",
        );
    };
    let gib = (facts.blocks_available() * facts.fragment_size()) >> 30;
    let what = format!("space: {gib} GiB free at {}", dir.display());
    if gib == 0 {
        return problem(
            what,
            "Coffer's database lies there too: once that is full, nothing can be changed",
            "free space there",
        );
    }
    if gib < FREE_GIB_MIN {
        return advice(
            what,
            "few volumes fit",
            "free space or name another state directory",
        );
    }
    good(what, "volumes are promised no more than there is")
}

fn tools(config: &LocalConfig) -> Vec<Finding> {
    let is_for_volumes = |package: &str| package == "xfsprogs";
    let missing = TOOLS
        .iter()
        .filter(|(_, package)| needs_loops(config) || !is_for_volumes(package))
        .filter(|(tool, _)| !process::has_tool(tool));
    missing
        .map(|(tool, package)| {
            problem(
                format!("tool: {tool} is missing"),
                "no instance can be made",
                format!("apt-get install {package}"),
            )
        })
        .collect()
}

/// What this process may do: as root, or as a user with a namespace of its own.
fn privileges(config: &LocalConfig) -> Vec<Finding> {
    if !world::is_without_root() {
        return capabilities();
    }
    if !world::has_one_id() {
        return vec![problem(
            "privileges: no root, and user namespaces are refused",
            "no sandbox can be made, and PostgreSQL of the host's own is not run without one",
            world::ALLOW,
        )];
    }
    let shared = advice(
        "privileges: no root; instances run in a user namespace of Coffer's own",
        &format!("not enforced: {}", world::shared_user()),
        "run coffer as root",
    );
    let published = match relay::ports(config) {
        Ok(ports) => advice(
            format!("published: ports of this host, {ports}"),
            "a process relays each; engines see their own address in the client's place, and \
             127.0.0.1 is reached from this host only",
            "run coffer as root, or name an address of this host in local.published_ports",
        ),
        Err(error) => problem(
            format!("published: {error}"),
            "Coffer does not start",
            "take local.published_pool out of the configuration",
        ),
    };
    vec![shared, published]
}

fn capabilities() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(n, _)| held >> n & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return vec![good(
            "privileges: all that are needed",
            "sandboxes can be made",
        )];
    }
    vec![problem(
        format!("privileges: CAP_{} missing", missing.join(", CAP_")),
        "no sandbox can be made",
        "run coffer as root, or grant its service these capabilities",
    )]
}

fn files(config: &LocalConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_bound_to_loops(config) && !loops::are_there() {
        findings.push(problem(
            "loop devices: there are none that can be used",
            "no volume can be mounted",
            "modprobe loop, or give the container its loop devices",
        ));
    }
    if !config.guest_binary.is_file() {
        findings.push(problem(
            format!("guest: {} is missing", config.guest_binary.display()),
            "no instance can start",
            "build coffer-guest, or name it in local.guest_binary",
        ));
    }
    findings
}

/// Whether volumes are, or were asked to be, of a mode that has loop devices.
fn is_bound_to_loops(config: &LocalConfig) -> bool {
    kept_mode(config).is_some_and(|mode| mode != VolumeMode::Directory)
        || !matches!(config.volume_mode, VolumeMode::Auto | VolumeMode::Directory)
}

/// Whether volumes are or will be file systems in files.
fn needs_loops(config: &LocalConfig) -> bool {
    let is_chosen = kept_mode(config).is_some() || config.volume_mode != VolumeMode::Auto;
    match is_chosen {
        true => is_bound_to_loops(config),
        false => loops::are_there(),
    }
}

/// The path itself, or the nearest directory above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors()
        .find(|p| p.is_dir())
        .unwrap_or_else(|| Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, volume_mode: VolumeMode) -> LocalConfig {
        LocalConfig {
            state_dir: dir.join("state"),
            tag: "t".to_owned(),
            pool_dir: dir.join("pool"),
            volume_mode,
            cow_pool_gib: 7,
            roots_dir: dir.join("roots"),
            guest_binary: dir.join("coffer-guest"),
            launcher: Vec::new(),
            published_pool: None,
            published_ports: None,
            uid_base: 700_000,
            tracker_link: crate::local::TrackerLink::Instance,
        }
    }

    #[test]
    fn a_refused_controller_is_not_called_good() {
        let none: &[String] = &[];
        assert_eq!(limited(Version::V2, none, none).level, Level::Good);
        let refused = [
            "memory (Device or resource busy)".to_owned(),
            "cpu (busy)".to_owned(),
        ];
        let found = limited(Version::V2, none, &refused);
        assert_eq!(found.level, Level::Advice);
        assert!(found.what.contains("resource busy") && found.means.contains("not enforced"));
        let found = limited(Version::V2, &["pids".to_owned()], &refused[1..]);
        assert_eq!(found.level, Level::Advice);
        assert!(found.what.contains("cpu (busy)"), "{found:?}");
        // Flavors do without the controller of I/O; what its lack means is a finding of its own.
        let (missing, refused) = (["blkio".to_owned()], ["io (busy)".to_owned()]);
        assert_eq!(limited(Version::V1, &missing, none).level, Level::Good);
        assert_eq!(limited(Version::V2, none, &refused).level, Level::Good);
    }

    #[test]
    fn io_that_cannot_be_limited_is_said_to_be_free() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let config = config(root, VolumeMode::Fast);
        fs::write(root.join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
        let mut groups = Groups::from_texts("0::/\n", &mounts, "coffer-t");
        let found = io_limited(&config, &groups);
        assert_eq!(found.level, Level::Good, "{found:?}");
        groups.try_out();
        let found = io_limited(&config, &groups);
        assert_eq!(found.level, Level::Advice);
        assert!(found.what.contains("no io controller"), "{found:?}");
        assert!(found.means.contains("not enforced") && !found.todo.is_empty());
        let none = Groups::from_texts("", "", "coffer-t");
        assert_eq!(io_limited(&config, &none).level, Level::Advice);
    }

    #[test]
    fn limits_are_tried_and_the_probe_is_removed() {
        let tag = format!("probe-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            tag: tag.clone(),
            ..config(dir.path(), VolumeMode::Cow)
        };
        let found = groups(&config);
        for (one, about) in found.iter().zip(["limits:", "I/O limits:"]) {
            assert!(one.what.starts_with(about), "{found:?}");
            assert!(!one.what.contains("cannot be made"), "{found:?}");
        }
        assert_eq!(found.len(), 2);
        let left = Groups::detect(&format!("coffer-{tag}-doctor-{}", std::process::id()));
        assert_eq!(left.list(), <[String; 0]>::default());
    }

    #[test]
    fn says_that_a_full_disk_would_reach_the_tenants() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), VolumeMode::Cow);
        fs::create_dir(&config.state_dir).unwrap();
        assert_eq!(pool_file(&config), None);
        let image = fs::File::create(config.state_dir.join("pool.img")).unwrap();
        image.set_len(5 << 30).unwrap();
        let found = pool_file(&config).unwrap();
        assert!(found.what.contains("5 GiB"), "{found:?}");
        assert!(pool(&config).what.contains("5 GiB"));
    }

    #[test]
    fn says_what_a_mode_costs_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let found = doctor(&config(dir.path(), VolumeMode::Cow));
        let pool = &found[0];
        assert_eq!(pool.level, Level::Advice);
        assert!(
            pool.what.contains("7 GiB") && pool.means.contains("\n* cow  everything"),
            "{pool:?}"
        );
        for cost in [
            "  xfs  instant snapshots",
            "four times",
            "  fast commits are as fast",
        ] {
            assert!(pool.means.contains(cost), "{cost}: {pool:?}");
        }
        let guest = found.iter().find(|f| f.what.starts_with("guest:")).unwrap();
        assert_eq!(guest.level, Level::Problem);
        assert!(guest.todo.contains("coffer-guest"), "{guest:?}");
        let fast = &doctor(&config(dir.path(), VolumeMode::Fast))[0];
        assert!(
            fast.means.contains("* fast ") && fast.means.contains("  cow  "),
            "{fast:?}"
        );
        // Whatever is no good says what to do.
        assert!(
            found
                .iter()
                .all(|f| (f.level == Level::Good) == f.todo.is_empty())
        );
        assert!(
            !dir.path().join("state").exists(),
            "looking changes nothing"
        );
    }
}

//! What this host can and cannot do for the local provider, in words for its operator.
//!
//! Looks only; changes nothing but a probe file without a name in the pool directory.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::cgroup::{Groups, Version};
use super::pool::{VolumeMode, can_reflink};
use super::record::read_json;
use super::{LocalConfig, process, sys};

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
/// Free space below which a finding is advice; unit: GiB.
const FREE_GIB_MIN: u64 = 10;

/// Looks at the host; blocks for some milliseconds.
pub fn doctor(config: &LocalConfig) -> Vec<Finding> {
    let mut findings = vec![
        pool(config),
        groups(&config.tag),
        landlock(),
        free_space(config),
    ];
    findings.extend(tools());
    findings.extend(capabilities());
    findings.extend(files(config));
    findings
}

fn good(what: impl Into<String>, means: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        means: means.into(),
        todo: String::new(),
        level: Level::Good,
    }
}

fn advice(what: impl Into<String>, means: &str, todo: &str) -> Finding {
    let (means, todo) = (means.to_owned(), todo.to_owned());
    Finding {
        what: what.into(),
        means,
        todo,
        level: Level::Advice,
    }
}

fn problem(what: impl Into<String>, means: &str, todo: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        means: means.to_owned(),
        todo: todo.into(),
        level: Level::Problem,
    }
}

fn pool(config: &LocalConfig) -> Finding {
    let kept: Option<VolumeMode> = read_json(&config.state_dir.join("pool-mode.json"))
        .ok()
        .flatten();
    let has_reflink = can_reflink(nearest(&config.pool_dir));
    let asked = kept.unwrap_or(config.volume_mode);
    let name = config.pool_dir.display();
    match asked {
        VolumeMode::Auto | VolumeMode::Xfs if has_reflink => good(
            format!("volumes: mode xfs in {name}"),
            "instant snapshots and clones; commits cost about 6 % against the bare disk",
        ),
        VolumeMode::Xfs => problem(
            format!("volumes: mode xfs was asked for, {name} cannot share blocks"),
            "no volume can be made",
            "mount an XFS made with reflink=1 there, or choose local.volume_mode cow or fast",
        ),
        VolumeMode::Auto | VolumeMode::Cow => advice(
            format!(
                "volumes: mode cow, an XFS of {} GiB in a file",
                config.cow_pool_gib
            ),
            "everything works; each commit passes two file systems and costs about four times as \
             much as on a real XFS pool",
            "for production put local.pool_dir on an XFS made with reflink=1",
        ),
        VolumeMode::Fast => advice(
            format!("volumes: mode fast in {name}"),
            "commits are as fast as the disk; no snapshots, no branches, and a new instance copies \
             its template",
            "put local.pool_dir on an XFS made with reflink=1 to have both",
        ),
    }
}

fn groups(tag: &str) -> Finding {
    let groups = Groups::detect(&format!("coffer-{tag}"));
    let missing = groups.missing().join(", ");
    match groups.version() {
        Version::None => problem(
            "limits: no memory controller",
            "a flavor's memory and CPU are not enforced: one instance can starve the others",
            "mount cgroup version 2 at /sys/fs/cgroup, or the version 1 controllers below it",
        ),
        version if missing.is_empty() => good(
            format!("limits: control groups {version:?}"),
            "flavors are enforced",
        ),
        version => advice(
            format!("limits: control groups {version:?} without {missing}"),
            "what these controllers limit is not enforced",
            "enable them in the kernel's command line or in the service manager",
        ),
    }
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

fn free_space(config: &LocalConfig) -> Finding {
    let dir = nearest(&config.state_dir);
    let Ok(facts) = statvfs(dir) else {
        return problem(
            format!("space: {} cannot be looked at", dir.display()),
            "nothing can be stored",
            "make the state directory readable for the user that runs coffer",
        );
    };
    let gib = (facts.blocks_available() * facts.fragment_size()) >> 30;
    let what = format!("space: {gib} GiB free at {}", dir.display());
    if gib < FREE_GIB_MIN {
        return advice(
            what,
            "few volumes fit",
            "free space or name another state directory",
        );
    }
    good(what, "volumes are promised no more than there is")
}

fn tools() -> Vec<Finding> {
    let missing = TOOLS.iter().filter(|(tool, _)| !process::has_tool(tool));
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
    if !Path::new("/dev/loop-control").exists() {
        findings.push(problem(
            "loop devices: /dev/loop-control is missing",
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
    fn says_what_a_mode_costs_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let found = doctor(&config(dir.path(), VolumeMode::Cow));
        let pool = &found[0];
        assert_eq!(pool.level, Level::Advice);
        assert!(
            pool.what.contains("7 GiB") && pool.means.contains("four times"),
            "{pool:?}"
        );
        let guest = found.iter().find(|f| f.what.starts_with("guest:")).unwrap();
        assert_eq!(guest.level, Level::Problem);
        assert!(guest.todo.contains("coffer-guest"), "{guest:?}");
        let fast = &doctor(&config(dir.path(), VolumeMode::Fast))[0];
        assert!(fast.means.contains("no snapshots"), "{fast:?}");
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

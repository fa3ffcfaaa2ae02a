//! What a Coffer under test runs on: this host as root, or with something of it taken away.
//!
//! What is taken away is taken in a mount namespace of Coffer's own. Network namespaces show in
//! both, as they do to a Coffer that is started again.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host;
use crate::run::{Program, wait_until};

/// What Coffer runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Root, who may not raise limits, as in many containers.
    Root,
    /// Root without loop devices and control groups.
    Bare,
    /// Root without loop devices.
    NoLoops,
    /// Root with control groups that can be read only.
    ReadOnlyGroups,
    /// A user with this id, whom no other process belongs to.
    User(u32),
}

/// Takes loop devices and control groups away from what is run in the rest of the words.
const STRIP: &str = "mount --make-rprivate /sys
mount --make-rprivate /dev
umount --recursive /sys/fs/cgroup
mount -t tmpfs none /dev
mkdir /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
exec \"$@\"";
/// Takes the loop devices away.
const HIDE_LOOPS: &str = "mount --make-rprivate /dev
mount --bind /dev/null /dev/loop-control
exec \"$@\"";
/// Lets control groups be read only, here and not for others.
const CLOSE_GROUPS: &str = "mount --make-rprivate /sys
while read -r _ at kind _; do
  case \"$kind\" in cgroup*) mount -o remount,bind,ro \"$at\";; esac
done < /proc/mounts
exec \"$@\"";
/// What comes before such a script.
const APART: [&str; 6] = [
    "unshare",
    "--mount",
    "--propagation",
    "unchanged",
    "sh",
    "-ec",
];

impl Ground {
    /// A user whom nobody else is, while this test's process lives.
    pub fn new_user() -> Self {
        Self::User(300_000_000 + std::process::id())
    }

    /// What is run before Coffer, which is the rest of the words.
    pub fn words(self) -> Vec<String> {
        let id = |uid: u32| [format!("--reuid={uid}"), format!("--regid={uid}")];
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let mut all = words(&["setpriv"]);
        match self {
            Self::User(uid) => {
                all.extend(id(uid));
                all.extend(words(&[
                    "--clear-groups",
                    "env",
                    "-i",
                    "PATH=/usr/bin:/bin",
                ]));
                return all;
            }
            _ => all.push("--bounding-set=-sys_resource".to_owned()),
        }
        let script = match self {
            Self::Root | Self::User(_) => return all,
            Self::Bare => STRIP,
            Self::NoLoops => HIDE_LOOPS,
            Self::ReadOnlyGroups => CLOSE_GROUPS,
        };
        all.extend(words(&APART));
        all.extend(words(&[script, "strip"]));
        all
    }

    /// Makes ready what it needs below the state directory of a Coffer; `program` names the
    /// executables that are copied to where a user can run them.
    pub fn prepare(self, dir: &Path, programs: [&Path; 2]) -> Result<()> {
        match self {
            Self::Root => Ok(()),
            // This makes a shared mount of the place of namespaces, if nothing has done it before.
            Self::Bare | Self::NoLoops | Self::ReadOnlyGroups => {
                let name = format!("e2e-{self:?}-{}", std::process::id());
                for verb in ["add", "delete"] {
                    Program::new("ip", ["netns", verb, &name]).run()?.ok()?;
                }
                Ok(())
            }
            Self::User(uid) => {
                let bin = dir.join("bin");
                fs::create_dir(&bin)?;
                for program in programs {
                    let name = program.file_name().context("a program has a name")?;
                    let to = bin.join(name);
                    // The tree that it is built in may be closed to others.
                    if fs::hard_link(program, &to).is_err() {
                        fs::copy(program, &to)?;
                    }
                }
                for path in [dir, &bin] {
                    chown(path, Some(uid), Some(uid))?;
                }
                Ok(())
            }
        }
    }

    /// Ends what a user still runs.
    pub fn clear(self) -> Result<()> {
        let Self::User(uid) = self else { return Ok(()) };
        wait_until(std::time::Duration::from_secs(10), || {
            let left = host::processes_of_user(uid)?;
            for (pid, _) in &left {
                Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
            }
            Ok(left.is_empty().then_some(()))
        })
    }
}

//! Whose the files of a volume are, in the sandbox that mounts it.
//!
//! Every sandbox has two user ids of its own, and a volume may be a clone whose files belong to
//! those of a template or of another instance. The mount maps them: a thousand files need not be
//! given away before an engine starts, and a clone goes on sharing their inodes. What is on the
//! volume stays as it is. Where nothing can be mapped (an older kernel, a volume in the middle of
//! being given away) the guest gives the files away itself.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::pipe2;

use super::failure::{errno, io};
use super::sys::{self, Side, fork_single_threaded};
use crate::error::Result;

const WHAT: &str = "map a volume's owners";
/// The directories whose owners are the agent and the engine, as the guest lays a volume out.
const OF_AGENT: &str = "agent";
const OF_AGENT_TOO: &str = "config";
const OF_ENGINE: &str = "engine";
/// The directory that is init's, with files of the engine's.
const OF_INIT: &str = "tls";

/// The user ids of a sandbox, its groups' too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) agent: u32,
    pub(super) engine: u32,
}

/// Shows what is mounted at `at`, which belongs to others, as these owners'; a mount that is right
/// as it is, or cannot be mapped, is left alone. The process must have one thread.
pub(super) fn show_as(at: &Path, owners: Owners) -> Result<()> {
    let Some(written) = written(at, owners)? else {
        return Ok(());
    };
    let lines = format!(
        "0 0 1\n{} {} 1\n{} {} 1\n",
        written.agent, owners.agent, written.engine, owners.engine
    );
    let mapped = namespace(&lines).and_then(|namespace| {
        let tree = sys::clone_mount(at)?;
        sys::map_owners(&tree, &namespace)?;
        Ok(tree)
    });
    let tree = match mapped {
        Ok(tree) => tree,
        Err(error) => {
            // For the console. The guest finds that they are others', and gives the files away.
            eprintln!("the volume's owners are not mapped, but changed: {error}");
            return Ok(());
        }
    };
    umount2(at, MntFlags::MNT_DETACH).map_err(errno(WHAT, at.display()))?;
    sys::place_mount(&tree, at).map_err(errno(WHAT, at.display()))
}

/// Who the owners are in what is written on a volume; `None` if they are the right ones, or the
/// volume is new, or not all of it is theirs.
fn written(at: &Path, owners: Owners) -> Result<Option<Owners>> {
    let owner = |name: &str| {
        let meta = at.join(name).symlink_metadata().ok()?;
        (meta.uid() == meta.gid()).then(|| meta.uid())
    };
    let mut all = uids_in(at)?;
    if at.join(OF_INIT).is_dir() {
        all.extend(uids_in(&at.join(OF_INIT))?);
    }
    Ok(told(
        owner(OF_ENGINE),
        owner(OF_AGENT).or_else(|| owner(OF_AGENT_TOO)),
        &all,
        owners,
    ))
}

fn uids_in(dir: &Path) -> Result<BTreeSet<u32>> {
    let uid = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.metadata()?.uid());
    let all = fs::read_dir(dir).and_then(|entries| entries.map(uid).collect());
    all.map_err(io(WHAT, dir.display()))
}

fn told(
    engine: Option<u32>,
    agent: Option<u32>,
    all: &BTreeSet<u32>,
    owners: Owners,
) -> Option<Owners> {
    let engine = engine?;
    // A volume without anything of an agent's gets it under an id that nobody else has there.
    let free = [owners.agent, owners.engine, 1];
    let agent = agent.or_else(|| free.into_iter().find(|id| *id != engine))?;
    let found = Owners { agent, engine };
    let is_whole = all.iter().all(|id| [0, agent, engine].contains(id));
    let differ = agent != engine && agent != 0 && engine != 0;
    (found != owners && is_whole && differ).then_some(found)
}

/// A user namespace with this map of user and group ids, which nobody is in.
fn namespace(lines: &str) -> nix::Result<File> {
    let (number_out, number_in) = pipe2(OFlag::O_CLOEXEC)?;
    let (end_out, end_in) = pipe2(OFlag::O_CLOEXEC)?;
    let child = match fork_single_threaded()? {
        Side::Child => {
            drop((number_out, end_in));
            stay(number_in.into(), end_out.into());
        }
        Side::Parent(child) => child,
    };
    drop((number_in, end_out));
    let open = || -> std::io::Result<File> {
        let mut number = String::new();
        File::from(number_out).read_to_string(&mut number)?;
        let process = Path::new("/proc").join(number);
        fs::write(process.join("uid_map"), lines)?;
        fs::write(process.join("gid_map"), lines)?;
        File::open(process.join("ns/user"))
    };
    let opened = open();
    drop(end_in);
    waitpid(child, None)?;
    opened.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

/// The child's side: tells its number as the host counts processes, for its own is one in the
/// sandbox, and stays in a new user namespace until the other side has seen it.
fn stay(mut number: File, mut end: File) -> ! {
    let told = unshare(CloneFlags::CLONE_NEWUSER).is_ok()
        && fs::read_link("/proc/self")
            .is_ok_and(|own| number.write_all(own.as_os_str().as_encoded_bytes()).is_ok());
    drop(number);
    if told {
        // Ends when the other side lets go of it.
        end.read_exact(&mut [0]).ok();
    }
    sys::end_at_once()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Owners = Owners {
        agent: 70,
        engine: 71,
    };

    fn of(engine: Option<u32>, agent: Option<u32>, all: &[u32]) -> Option<(u32, u32)> {
        let found = told(engine, agent, &all.iter().copied().collect(), OWN);
        found.map(|owners| (owners.agent, owners.engine))
    }

    #[test]
    fn a_clone_of_others_is_mapped() {
        assert_eq!(of(Some(51), Some(50), &[0, 50, 51]), Some((50, 51)));
        // A template has nothing of an agent's.
        assert_eq!(of(Some(51), None, &[0, 51]), Some((70, 51)));
        assert_eq!(of(Some(70), None, &[0, 70]), Some((71, 70)));
        assert_eq!(of(Some(71), None, &[71]), None, "it is right as it is");
        assert_eq!(of(Some(71), Some(70), &[0, 70, 71]), None);
        assert_eq!(of(Some(70), Some(71), &[70, 71]), Some((71, 70)), "swapped");
    }

    #[test]
    fn what_is_new_or_half_given_away_is_not() {
        assert_eq!(of(None, None, &[]), None);
        assert_eq!(of(None, Some(70), &[70]), None);
        assert_eq!(of(Some(0), Some(50), &[0, 50]), None);
        assert_eq!(of(Some(51), Some(0), &[0, 51]), None);
        assert_eq!(of(Some(51), Some(50), &[50, 51, 52]), None);
        assert_eq!(of(Some(51), Some(51), &[51]), None);
    }
}

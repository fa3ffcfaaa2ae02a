//! What the local provider remembers, under its state directory.
//!
//! Stored: one JSON file per network, volume, server and endpoint, written before anything is made
//! (so that whatever exists on the host has an id) and again when it is complete; tombstones of
//! deleted volumes, servers and endpoints, so that a late call for what was deleted is refused. Not
//! stored: what the kernel knows better (whether a process lives, what is mounted).
//!
//! Several Coffer processes may use one state directory: every change of an object holds its lock
//! file, which the kernel releases when its holder dies. A lock's file goes with its object; what a
//! killed process left of either is swept away when the next one opens the directory.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Write;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_core::access::Cidr;
use coffer_core::id::{EndpointId, NetworkId, ServerId, VolumeId};
use coffer_core::units::{Incarnation, IoLimits, Turn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::clock::{age, wait_until};
use super::failure::{io, rejected};
use super::limits;
use crate::error::{ProviderError, Result};

/// How long a deletion is remembered.
const TOMBSTONE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a file may be being written by a process that lives: pids are given again.
const PART_AGE: Duration = Duration::from_secs(3600);
/// What the name of a file that is being written ends in, before its writer's pid.
const PART: &str = "part";

/// A tenant network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) id: NetworkId,
    /// Range, `10.0.0.0/24`.
    pub(super) subnet: String,
    pub(super) tracker_address: IpAddr,
    /// Inode of the namespace that was completed; another inode means it has to be made again.
    pub(super) complete: Option<u64>,
}

impl NetworkRecord {
    /// The range, which was checked when the record was written.
    pub(super) fn cidr(&self) -> Result<Cidr> {
        self.subnet
            .parse()
            .map_err(|e| rejected("read network record", e))
    }
}

/// A volume or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    pub(super) id: VolumeId,
    pub(super) incarnation: Incarnation,
    pub(super) size_bytes: u64,
    /// Whether its file is whole.
    pub(super) is_ready: bool,
    /// Whether it still has the file system uuid of what it was cloned from.
    pub(super) has_cloned_uuid: bool,
    /// Bytes of its file that it shared with what it was cloned from.
    pub(super) shared_bytes: u64,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServerRecord {
    pub(super) id: ServerId,
    pub(super) incarnation: Incarnation,
    /// Newest turn under which something was asked of it.
    #[serde(default)]
    pub(super) turn: Turn,
    pub(super) roots: Vec<String>,
    pub(super) volume_id: VolumeId,
    pub(super) network_id: NetworkId,
    pub(super) network_address: IpAddr,
    pub(super) memory_mib: u32,
    pub(super) vcpus: u32,
    /// How fast its volume may be read and written.
    #[serde(default)]
    pub(super) io: IoLimits,
    /// User ids of its agent and its engine.
    pub(super) uids: (u32, u32),
    /// Directories of its control groups; they may lie where an earlier Coffer ran.
    pub(super) groups: Vec<PathBuf>,
    /// When a stop turns from asking to killing, on the clock of this boot, and that boot.
    pub(super) stopping: Option<(u64, String)>,
    /// What a store that lost it would have to be told.
    #[serde(default)]
    pub(super) card: String,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointRecord {
    pub(super) id: EndpointId,
    /// Newest turn under which something was asked of it.
    #[serde(default)]
    pub(super) turn: Turn,
    pub(super) network_id: NetworkId,
    pub(super) port: u16,
    pub(super) published: Option<SocketAddr>,
    /// Address at its published link, where that is not the published address itself.
    #[serde(default)]
    pub(super) inside: Option<IpAddr>,
    pub(super) allowed_cidrs: Vec<String>,
    pub(super) target: Option<ServerId>,
    /// The server it led to before, while that one has not heard of it.
    #[serde(default)]
    pub(super) left: Option<ServerId>,
}

/// The first process of a sandbox, written by the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// Its pid on the host.
    pub pid: i32,
    /// When it started; unit: clock ticks since boot.
    pub start_time: u64,
    /// The boot in which that was.
    pub boot_id: String,
}

impl Launched {
    /// The process that the file at `path` names, if it lives. A file that cannot be read names
    /// none: it is not forced to disk, and what it told of ended with the host's power.
    pub(super) fn living(path: &Path) -> Option<Self> {
        read_json::<Self>(path)
            .ok()
            .flatten()
            .filter(Self::is_alive)
    }

    /// Whether that very process lives: not a later one with the same pid, not a dead one.
    pub(super) fn is_alive(&self) -> bool {
        boot_id() == self.boot_id && start_time(self.pid) == Some(self.start_time)
    }
}

/// Start time of a process that lives; `None` for a zombie or none.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any character, parentheses too.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The kernel's id of this boot.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The kinds of record, each a directory of the state directory.
pub(super) trait Kind: Serialize + DeserializeOwned {
    /// Name of the directory.
    const DIR: &'static str;
}

impl Kind for NetworkRecord {
    const DIR: &'static str = "networks";
}
impl Kind for VolumeRecord {
    const DIR: &'static str = "volumes";
}
impl Kind for ServerRecord {
    const DIR: &'static str = "servers";
}
impl Kind for EndpointRecord {
    const DIR: &'static str = "endpoints";
}

/// All records of one kind.
#[derive(Debug)]
pub(super) struct Records<T> {
    dir: PathBuf,
    tombstones: PathBuf,
    kind: PhantomData<fn() -> T>,
}

impl<T: Kind> Records<T> {
    /// Opens the directory of this kind below `state`.
    pub(super) fn open(state: &Path) -> Result<Self> {
        let dir = state.join(T::DIR);
        let tombstones = state.join("tombstones").join(T::DIR);
        for path in [&dir, &tombstones] {
            fs::create_dir_all(path).map_err(io("open state directory", path.display()))?;
        }
        Ok(Self {
            dir,
            tombstones,
            kind: PhantomData,
        })
    }

    /// The record with this id.
    pub(super) fn find(&self, id: &str) -> Result<Option<T>> {
        read_json(&self.dir.join(format!("{id}.json")))
    }

    /// Writes a record, whole or not at all, and durably.
    pub(super) fn put(&self, id: &str, record: &T) -> Result<()> {
        write_json(&self.dir.join(format!("{id}.json")), record)
    }

    /// Removes the record if it is there.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        remove_file(&self.dir.join(format!("{id}.json")))
    }

    /// All records, in no order.
    pub(super) fn list(&self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let entries = fs::read_dir(&self.dir).map_err(io("list records", self.dir.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(record) = read_json(&path)?
            {
                all.push(record);
            }
        }
        Ok(all)
    }

    /// Remembers that this incarnation and all before it were deleted.
    pub(super) fn bury(&self, id: &str, incarnation: Incarnation) -> Result<()> {
        let newest = self
            .buried(id)?
            .map_or(incarnation, |known| known.max(incarnation));
        write_json(&self.tombstones.join(id), &newest)
    }

    /// Forgets what was deleted so long ago that no call for it can still be under way.
    pub(super) fn prune_tombstones(&self) {
        let Ok(entries) = fs::read_dir(&self.tombstones) else {
            return;
        };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|m| m.modified());
            if modified.is_ok_and(|at| age(at) > TOMBSTONE_AGE) {
                // One that stays is tried again.
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// The newest incarnation that was deleted.
    pub(super) fn buried(&self, id: &str) -> Result<Option<Incarnation>> {
        read_json(&self.tombstones.join(id))
    }
}

/// An object's lock, held until dropped or until its holder dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// The object's record; the lock's file goes when that is not there.
    record: Option<PathBuf>,
}

impl Lock {
    /// Takes the lock named `key`, waiting for its holder within a bound.
    pub(super) fn take(state: &Path, key: &str) -> Result<Self> {
        let mut taken = None;
        let mut failure = None;
        let ended = wait_until(limits::LOCK, || match Self::attempt(state, key) {
            Ok(lock) => {
                taken = lock;
                taken.is_some()
            }
            Err(e) => {
                failure = Some(e);
                true
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let busy = || ProviderError::Busy {
            what: "lock",
            why: format!("an earlier call on {key} goes on; this one is made when that has ended"),
        };
        if ended {
            taken.ok_or_else(busy)
        } else {
            Err(busy())
        }
    }

    /// Takes the lock if nobody holds it.
    pub(super) fn attempt(state: &Path, key: &str) -> Result<Option<Self>> {
        let path = state.join("locks").join(key);
        let what = "lock";
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io(what, path.display()))?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // The file may have been removed between opening and locking: then this lock is no one's.
        let held = file.metadata().map_err(io(what, path.display()))?.ino();
        let is_current = fs::metadata(&path).is_ok_and(|m| m.ino() == held);
        let record = None;
        Ok(is_current.then_some(Self { file, path, record }))
    }

    /// The same lock as that of an object: its file stays no longer than the object's record.
    pub(super) fn of(mut self, record: PathBuf) -> Self {
        self.record = Some(record);
        self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let is_gone = self.record.as_ref().is_some_and(|path| !path.exists());
        let inode = |facts: std::io::Result<Metadata>| facts.map(|m| m.ino()).ok();
        // It is still held: nobody else has put another file under its name.
        if is_gone && inode(self.file.metadata()) == inode(fs::metadata(&self.path)) {
            // One that stays is swept away at the next start.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// The record of an object by the key of its lock, `server-ID`; `None` for what is no object's.
fn record_of(state: &Path, key: &str) -> Option<PathBuf> {
    let (kind, id) = key.split_once('-')?;
    let dirs = [
        NetworkRecord::DIR,
        VolumeRecord::DIR,
        ServerRecord::DIR,
        EndpointRecord::DIR,
    ];
    let dir = dirs
        .iter()
        .find(|dir| dir.strip_suffix('s') == Some(kind))?;
    Some(state.join(dir).join(format!("{id}.json")))
}

/// Takes the lock of one object.
pub(super) fn lock_object(state: &Path, kind: &str, id: &str) -> Result<Lock> {
    let key = format!("{kind}-{id}");
    let lock = Lock::take(state, &key)?;
    Ok(match record_of(state, &key) {
        Some(record) => lock.of(record),
        None => lock,
    })
}

/// Removes what killed processes left below the state directory: files that were being written,
/// and locks of objects that are gone.
pub(super) fn sweep(state: &Path) {
    sweep_writes(state);
    for path in paths_in(&state.join("locks")) {
        let key = path.file_name().and_then(|name| name.to_str());
        let Some((key, record)) = key.and_then(|key| Some((key, record_of(state, key)?))) else {
            continue;
        };
        // Dropping it removes it. One that another process holds is that one's to remove.
        if !record.exists()
            && let Ok(Some(lock)) = Lock::attempt(state, key)
        {
            drop(lock.of(record));
        }
    }
}

/// Removes files that killed processes were writing; others may be at work meanwhile.
pub(super) fn sweep_writes(state: &Path) {
    sweep_parts(state, 3);
}

fn sweep_parts(dir: &Path, depth: u32) {
    for path in paths_in(dir) {
        // What is mounted here is the pool, which has other names and other sweepers.
        let is_dir = path.is_dir() && !path.is_symlink() && !path.ends_with("pool");
        if is_dir && depth > 0 {
            sweep_parts(&path, depth - 1);
        } else if is_left_part(&path) {
            tracing::warn!(file = %path.display(), "remove what a killed process was writing");
            // One that stays is tried again.
            fs::remove_file(&path).ok();
        }
    }
}

fn is_left_part(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    let writer = ending.and_then(|e| e.strip_prefix(PART)?.parse::<i32>().ok());
    let is_old = || {
        let modified = fs::metadata(path).and_then(|m| m.modified());
        modified.is_ok_and(|at| age(at) > PART_AGE)
    };
    writer.is_some_and(|pid| start_time(pid).is_none() || is_old())
}

fn paths_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Reads a JSON file; `None` if it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let what = "read record";
    let text = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io(what, path.display()))?,
    };
    let damaged = |e| {
        rejected(
            what,
            format!("{} is damaged ({e}): restore it", path.display()),
        )
    };
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Makes a directory, or closes one that is there, so that only its owner gets below it: what
/// lies there holds tenants' data and keys.
pub(super) fn private_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(io("make private directory", path.display()))
}

/// Writes a JSON file, whole or not at all, and durably.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    put_json(path, value, File::sync_all)
}

/// Writes a JSON file that means nothing after the host's next boot, whole or not at all.
pub(super) fn write_json_for_this_boot<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    put_json(path, value, |_| Ok(()))
}

fn put_json<T: Serialize>(
    path: &Path,
    value: &T,
    settle: fn(&File) -> std::io::Result<()>,
) -> Result<()> {
    let what = "write record";
    let text = serde_json::to_vec(value).map_err(|e| rejected(what, e))?;
    let part = path.with_extension(format!("{PART}{}", std::process::id()));
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(&text)?;
        settle(&file)?;
        fs::rename(&part, path)?;
        path.parent()
            .map_or(Ok(()), |dir| settle(&File::open(dir)?))
    });
    written.map_err(io(what, path.display()))
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path.display())(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use coffer_core::units::Iops;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_note_that_lost_its_content_with_the_power_names_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("launched.json");
        assert_eq!(Launched::living(&path), None);
        fs::write(&path, "").unwrap();
        assert_eq!(Launched::living(&path), None);
        let own = i32::try_from(std::process::id()).unwrap();
        let launched = Launched {
            pid: own,
            start_time: start_time(own).unwrap(),
            boot_id: boot_id(),
        };
        write_json_for_this_boot(&path, &launched).unwrap();
        assert_eq!(Launched::living(&path), Some(launched));
    }

    #[test]
    fn a_server_of_an_earlier_coffer_has_no_io_limits() {
        let id = Uuid::from_u128(1);
        let limited = IoLimits {
            write_iops_sec: Iops::parse("test", 500).ok(),
            ..IoLimits::NONE
        };
        let record = ServerRecord {
            id: ServerId::from_uuid(id),
            incarnation: Incarnation(1),
            turn: Turn(1),
            roots: Vec::new(),
            volume_id: VolumeId::from_uuid(id),
            network_id: NetworkId::from_uuid(id),
            network_address: "10.0.0.5".parse().unwrap(),
            memory_mib: 512,
            vcpus: 1,
            io: limited,
            uids: (0, 0),
            groups: Vec::new(),
            stopping: None,
            card: String::new(),
        };
        let mut text = serde_json::to_value(&record).unwrap();
        let read = |text: &serde_json::Value| ServerRecord::deserialize(text).unwrap().io;
        assert_eq!(read(&text), limited);
        text.as_object_mut().unwrap().remove("io");
        assert_eq!(read(&text), IoLimits::NONE);
    }

    #[test]
    fn records_survive_and_tombstones_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::<NetworkRecord>::open(dir.path()).unwrap();
        let record = NetworkRecord {
            id: NetworkId::from_uuid(Uuid::nil()),
            subnet: "10.0.0.0/24".to_owned(),
            tracker_address: "10.0.0.1".parse().unwrap(),
            complete: None,
        };
        records.put("a", &record).unwrap();
        assert_eq!(records.find("a").unwrap(), Some(record));
        assert_eq!(records.list().unwrap().len(), 1);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(records.find("a").unwrap().is_none());
        records.bury("a", Incarnation(3)).unwrap();
        records.bury("a", Incarnation(2)).unwrap();
        assert_eq!(records.buried("a").unwrap(), Some(Incarnation(3)));
    }

    #[test]
    fn a_lock_excludes_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("locks")).unwrap();
        let first = Lock::take(dir.path(), "x").unwrap();
        assert!(Lock::attempt(dir.path(), "x").unwrap().is_none());
        drop(first);
        assert!(Lock::attempt(dir.path(), "x").unwrap().is_some());
    }

    #[test]
    fn a_lock_goes_with_its_object() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["locks", "servers"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let (file, record) = ("locks/server-a", "servers/a.json");
        let (file, record) = (dir.path().join(file), dir.path().join(record));
        fs::write(&record, "{}").unwrap();
        drop(lock_object(dir.path(), "server", "a").unwrap());
        assert!(file.exists(), "the object is there");
        let held = lock_object(dir.path(), "server", "a").unwrap();
        fs::remove_file(&record).unwrap();
        sweep(dir.path());
        assert!(file.exists(), "it is held");
        drop(held);
        assert!(!file.exists());
        // Of another holder's file nothing is taken away.
        let held = lock_object(dir.path(), "server", "a").unwrap();
        fs::remove_file(&file).unwrap();
        let next = Lock::attempt(dir.path(), "server-a").unwrap().unwrap();
        drop(held);
        assert!(file.exists());
        drop(next);
        sweep(dir.path());
        assert!(!file.exists());
    }

    #[test]
    fn what_a_killed_process_was_writing_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::<NetworkRecord>::open(dir.path()).unwrap();
        records.bury("b", Incarnation(1)).unwrap();
        let sandbox = dir.path().join("sandboxes/x");
        fs::create_dir_all(&sandbox).unwrap();
        // No process has this id: the kernel's greatest is 2^22.
        let left = [
            dir.path().join("networks/a.part99999999"),
            dir.path().join("tombstones/networks/b.part99999999"),
            dir.path().join("guarded-pool.part99999999"),
            sandbox.join("launch.part99999999"),
        ];
        let own = format!("networks/c.part{}", std::process::id());
        let kept = [
            dir.path().join(own),
            dir.path().join("tombstones/networks/b"),
        ];
        for path in left.iter().chain(&kept[..1]) {
            fs::write(path, "{").unwrap();
        }
        sweep(dir.path());
        for path in left {
            assert!(!path.exists(), "{}", path.display());
        }
        for path in kept {
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn knows_this_process_from_another_with_its_pid() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start = start_time(pid).unwrap();
        let mut own = Launched {
            pid,
            start_time: start,
            boot_id: boot_id(),
        };
        assert!(own.is_alive());
        own.start_time += 1;
        assert!(!own.is_alive());
    }
}

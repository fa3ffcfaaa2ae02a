//! Volumes: made, cloned, grown, snapshotted, deleted.
//!
//! A volume is one file of the pool with an XFS in it, as large as the tenant may fill: a hard
//! limit. (Or a directory, which has none: mode `directory`.) It is attached by the sandbox that
//! uses it, so nothing here mounts. The sizes of all volumes together never exceed what the pool
//! has: a pool that fills up under its volumes would give every tenant write errors.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use coffer_core::id::VolumeId;
use coffer_core::units::Incarnation;

use super::device::Device;
use super::failure::{conflict, io, rejected, transient};
use super::host::Host;
use super::jail::DATA_DIR;
use super::limits;
use super::loops::{self, Mounted};
use super::pool;
use super::record::{Launched, Lock, VolumeRecord};
use crate::error::{ProviderError, Result};
use crate::provider::{Origin, VolumeRef, VolumeSpec};

/// File of a volume.
pub(super) fn file_of(host: &Host, id: VolumeId) -> PathBuf {
    let end = host.pool.extension();
    host.pool.volumes().join(format!("{id}.{end}"))
}

/// Makes a volume or grows it; a template that it begins with must be there.
pub(super) fn ensure(host: &Host, spec: &VolumeSpec) -> Result<VolumeRef> {
    let key = spec.id.to_string();
    let _lock = host.lock("volume", &key)?;
    let record = admit(host, spec)?;
    let file = file_of(host, spec.id);
    match record {
        Some(record) if record.is_ready => grow(host, record, spec)?,
        _ if spec.origin == Origin::Existing => return Err(lost(host, &key)),
        _ => make(host, spec, |part| fill(host, spec, part))?,
    }
    Ok(VolumeRef {
        provider_ref: file.display().to_string(),
    })
}

/// A volume that was made once and that no record knows any more: its data may be kept somewhere,
/// and a new file in its place would pass for them.
fn lost(host: &Host, key: &str) -> ProviderError {
    let why = format!(
        "volume {key} was made here once, and {} does not know it: restore that directory and the \
         pool from your backup; nothing is made in its place",
        host.config.state_dir.display()
    );
    rejected("ensure volume", why)
}

/// Makes an instant snapshot of a volume, in use or not.
pub(super) fn snapshot(host: &Host, source: VolumeId, spec: &VolumeSpec) -> Result<VolumeRef> {
    let what = "snapshot volume";
    if !host.pool.has_reflink() {
        let why = "volume modes `fast` and `directory` have no snapshots: put the pool on an XFS \
                   with reflink";
        return Err(rejected(what, why));
    }
    let key = spec.id.to_string();
    let lock = Arc::new(host.lock("volume", &key)?);
    let file = file_of(host, spec.id);
    if !admit(host, spec)?.is_some_and(|r| r.is_ready) {
        let from = host
            .volumes
            .find(&source.to_string())?
            .filter(|r| r.is_ready);
        let from = from.ok_or(ProviderError::NotFound { what: "volume" })?;
        let whole = VolumeSpec {
            size: spec.size.max(size_of(from.size_bytes)?),
            ..spec.clone()
        };
        make(host, &whole, |part| {
            freeze_and_clone(host, source, part, &lock)
        })?;
    }
    Ok(VolumeRef {
        provider_ref: file.display().to_string(),
    })
}

/// Removes a volume of this incarnation or an older one, and remembers that it did.
pub(super) fn delete(host: &Host, id: VolumeId, incarnation: Incarnation) -> Result<()> {
    let key = id.to_string();
    let _lock = host.lock("volume", &key)?;
    let record = host.volumes.find(&key)?;
    if record.as_ref().is_some_and(|r| r.incarnation > incarnation) {
        return Ok(());
    }
    let file = file_of(host, id);
    if record.is_none() && user(host, id).is_none() {
        loops::release(&file)?;
    }
    if user(host, id).is_some() || !loops::wait_released(&file)? {
        return Err(conflict(
            "delete volume",
            format!("{id} is in use: stop its server first"),
        ));
    }
    host.volumes.bury(&key, incarnation)?;
    pool::remove_volume(&file)?;
    pool::remove_volume(&part_of(&file))?;
    host.volumes.remove(&key)
}

/// Thaws what a Coffer that died in the middle of a snapshot left frozen.
pub(super) fn thaw_all(host: &Host) {
    for server in host.servers.list().unwrap_or_default() {
        if let Ok(Some(volume)) = mounted(host, server.volume_id) {
            // Its server may have just ended, and the file system with it.
            volume.thaw().ok();
        }
    }
}

/// The block device that what is read from and written to a volume in use is charged to: the
/// volume's own loop device, whatever lies below that. Where volumes are directories it is the disk
/// below them, with all that the sandbox does there; `None` if there is no such disk.
pub(super) fn device(host: &Host, id: VolumeId) -> Result<Option<Device>> {
    if host.pool.has_directories() {
        return Ok(host.pool.disk());
    }
    match loops::number_of(&file_of(host, id))? {
        Some(device) => Ok(Some(device)),
        None => Err(transient("limit I/O", "its server is just starting")),
    }
}

/// Checks incarnations; returns the record of this very one.
fn admit(host: &Host, spec: &VolumeSpec) -> Result<Option<VolumeRecord>> {
    let what = "ensure volume";
    let key = spec.id.to_string();
    if host
        .volumes
        .buried(&key)?
        .is_some_and(|gone| spec.incarnation <= gone)
    {
        return Err(conflict(
            what,
            format!("{key} of this incarnation was deleted"),
        ));
    }
    let record = host.volumes.find(&key)?;
    match &record {
        Some(r) if r.incarnation != spec.incarnation => {
            let why = format!(
                "{key} exists as incarnation {}: delete that first",
                r.incarnation.0
            );
            Err(conflict(what, why))
        }
        _ => Ok(record),
    }
}

/// Makes a volume's file by `fill`, in another name until it is whole.
fn make(host: &Host, spec: &VolumeSpec, fill: impl FnOnce(&Path) -> Result<u64>) -> Result<()> {
    let key = spec.id.to_string();
    let file = file_of(host, spec.id);
    let part = part_of(&file);
    let mut record = VolumeRecord {
        id: spec.id,
        incarnation: spec.incarnation,
        size_bytes: spec.size.as_bytes(),
        is_ready: false,
        has_cloned_uuid: !matches!(spec.origin, Origin::Empty) && !host.pool.has_directories(),
        shared_bytes: 0,
    };
    reserve(host, &record)?;
    let filled = fill(&part).and_then(|shared| {
        let what = "size volume";
        resize(&part, record.size_bytes)?;
        fs::rename(&part, &file).map_err(io(what, file.display()))?;
        Ok(shared)
    });
    match filled {
        Ok(shared) => {
            record.is_ready = true;
            record.shared_bytes = shared;
            host.volumes.put(&key, &record)
        }
        Err(e) => {
            // Nothing of a failed attempt may stay and count.
            pool::remove_volume(&part)?;
            host.volumes.remove(&key)?;
            Err(e)
        }
    }
}

/// Counts a volume against the pool, and writes it down so that the next one counts it too.
fn reserve(host: &Host, record: &VolumeRecord) -> Result<()> {
    let _lock = Lock::take(&host.config.state_dir, "pool-space")?;
    let others: Vec<VolumeRecord> = host
        .volumes
        .list()?
        .into_iter()
        .filter(|r| r.id != record.id)
        .collect();
    let promised: u64 = others.iter().map(|r| r.size_bytes).sum();
    let own: u64 = others
        .iter()
        .map(|r| pool::allocated(&file_of(host, r.id)).saturating_sub(r.shared_bytes))
        .sum();
    let capacity = host.pool.capacity_bytes(own)?;
    if promised + record.size_bytes > capacity {
        let why = format!(
            "{} GiB asked for, {} of {} GiB of the pool are promised: delete volumes or enlarge \
             the pool",
            record.size_bytes >> 30,
            promised >> 30,
            capacity >> 30
        );
        return Err(ProviderError::QuotaExceeded {
            what: "ensure volume",
            why,
        });
    }
    host.volumes.put(&record.id.to_string(), record)
}

/// Fills a new volume's file; returns how many bytes it shares with its origin.
fn fill(host: &Host, spec: &VolumeSpec, part: &Path) -> Result<u64> {
    let source = match &spec.origin {
        Origin::Existing => return Err(lost(host, &spec.id.to_string())),
        Origin::Empty => {
            host.pool.format(part, spec.size.as_bytes(), &[])?;
            return Ok(0);
        }
        Origin::Template { root } => super::template::file_of(host, root),
        Origin::Snapshot(id) => {
            let whole = host.volumes.find(&id.to_string())?.filter(|r| r.is_ready);
            let from = whole.ok_or(ProviderError::NotFound { what: "snapshot" })?;
            if from.size_bytes > spec.size.as_bytes() {
                let why = format!(
                    "its snapshot has {} GiB: ask for more",
                    from.size_bytes >> 30
                );
                return Err(rejected("ensure volume", why));
            }
            file_of(host, *id)
        }
    };
    host.pool.copy(&source, part)?;
    Ok(if host.pool.has_reflink() {
        pool::allocated(&source)
    } else {
        0
    })
}

fn grow(host: &Host, mut record: VolumeRecord, spec: &VolumeSpec) -> Result<()> {
    let what = "grow volume";
    let file = file_of(host, spec.id);
    let now = fs::metadata(&file).map_err(|_| {
        rejected(
            what,
            format!("{} is gone: restore the pool or a backup", file.display()),
        )
    })?;
    let bytes = spec.size.as_bytes();
    if record.size_bytes < bytes {
        record.size_bytes = bytes;
        reserve(host, &record)?;
    }
    let mounted = mounted(host, spec.id)?;
    if now.is_file() && now.len() < record.size_bytes {
        if mounted.is_none() && loops::is_in_use(&file)? {
            return Err(transient(what, "its server is just starting"));
        }
        resize(&file, record.size_bytes)?;
    }
    // Where it is not mounted the next mount grows the file system; where it is, a call that died
    // half way is made good by doing it again, which costs nothing when it is done.
    mounted.map_or(Ok(()), |volume| volume.grow(record.size_bytes))
}

/// Makes a volume's file as large as the volume; a directory has no size.
fn resize(file: &Path, bytes: u64) -> Result<()> {
    let what = "size volume";
    if file.is_dir() {
        return Ok(());
    }
    let opened = OpenOptions::new()
        .write(true)
        .open(file)
        .map_err(io(what, file.display()))?;
    opened.set_len(bytes).map_err(io(what, file.display()))
}

/// A volume that is mounted, seen through the sandbox that has it.
fn mounted(host: &Host, id: VolumeId) -> Result<Option<Mounted>> {
    let Some(by) = user(host, id) else {
        return Ok(None);
    };
    let at = PathBuf::from(format!("/proc/{}/root{DATA_DIR}", by.pid));
    Mounted::find(&file_of(host, id), &at)
}

/// The running sandbox that has a volume.
pub(super) fn user(host: &Host, id: VolumeId) -> Option<Launched> {
    let servers = host.servers.list().ok()?;
    servers
        .iter()
        .filter(|s| s.volume_id == id)
        .find_map(|s| super::server::launched(host, s.id))
}

/// Clones a volume's file, holding its writes back meanwhile if it is mounted. On a thread of its
/// own, so that whatever happens to the caller, writes go on again. It holds the snapshot's lock to
/// its end: what comes too late is not done beside its repetition.
fn freeze_and_clone(host: &Host, source: VolumeId, part: &Path, lock: &Arc<Lock>) -> Result<u64> {
    let what = "snapshot volume";
    let file = file_of(host, source);
    let mounted = mounted(host, source)?;
    let (pool, from, to) = (host.pool.clone(), file.clone(), part.to_owned());
    let work = move || clone_frozen(&pool, mounted.as_ref(), &from, &to);
    in_time(limits::SNAPSHOT, part, lock, work)
        .ok_or_else(|| transient(what, "writes could not be held back in time"))??;
    Ok(pool::allocated(&file))
}

/// What `work`, which makes the file `part`, comes to within the limit. Afterwards it keeps the
/// lock until its end, and leaves no file.
fn in_time<T: Send + 'static>(
    limit: Duration,
    part: &Path,
    lock: &Arc<Lock>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    let (part, held) = (part.to_owned(), Arc::clone(lock));
    thread::spawn(move || {
        if sender.send(work()).is_err()
            && let Err(error) = pool::remove_volume(&part)
        {
            tracing::warn!(%error, "remove what was made too late");
        }
        drop(held);
    });
    receiver.recv_timeout(limit).ok()
}

fn clone_frozen(
    pool: &pool::Pool,
    mounted: Option<&Mounted>,
    from: &Path,
    to: &Path,
) -> Result<()> {
    // One that is just being mounted is cloned as it is: as after a crash, its log makes it good.
    let Some(volume) = mounted else {
        return pool.copy(from, to);
    };
    volume.freeze()?;
    let cloned = pool.copy(from, to);
    volume.thaw()?;
    cloned
}

fn size_of(bytes: u64) -> Result<coffer_core::units::VolumeSize> {
    let gib = i64::try_from(bytes.div_ceil(1 << 30)).unwrap_or(i64::MAX);
    coffer_core::units::VolumeSize::gib(gib).map_err(|e| rejected("read volume record", e))
}

fn part_of(file: &Path) -> PathBuf {
    file.with_extension("part")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::clock::wait_until;

    #[test]
    fn what_comes_too_late_keeps_its_lock_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("locks")).unwrap();
        let (part, key) = (dir.path().join("v.part"), "volume-v");
        let lock = Arc::new(Lock::take(dir.path(), key).unwrap());
        let (go_on, gate) = channel();
        let made = part.clone();
        let work = move || {
            gate.recv().unwrap();
            fs::write(made, "late").unwrap();
        };
        assert!(in_time(Duration::from_millis(10), &part, &lock, work).is_none());
        drop(lock);
        let again = || Lock::attempt(dir.path(), key).unwrap();
        assert!(again().is_none(), "its repetition would run beside it");
        go_on.send(()).unwrap();
        assert!(wait_until(Duration::from_secs(5), || again().is_some()));
        assert!(!part.exists());
    }
}

//! The pool: the directory that volume files lie in, and what its file system can do.
//!
//! Four modes. `xfs`: the pool directory itself is on an XFS that shares blocks between files.
//! `cow`: it is not, so one file holds an XFS that does; everything works, each commit costs
//! several times more. That file is reserved on its disk in whole: sparse, a disk that fills up
//! below it, by whatever else lies there, would give every tenant write errors in the middle of a
//! commit. So a laptop gives a part of its disk away at the first start, half of what is free at
//! most, and its tenants are never touched by what it does with the rest. `fast`: files lie
//! directly on whatever the host has; copies are real copies and there are no snapshots.
//! `directory`: there are no loop devices, so volumes are directories, and nothing limits what is
//! written to them. The mode of a state directory is kept once chosen, because volumes of one mode
//! are not found in another.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{XFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};

use super::device::Device;
use super::failure::{errno, io, rejected};
use super::record::{Lock, private_dir, read_json, remove_file, write_json};
use super::{LocalConfig, loops, process, sys};
use crate::error::Result;

const WHAT: &str = "open volume pool";
/// What volumes leave free on a disk that the state directory lies on too: Coffer's database, logs
/// and the rest of the host have to go on.
const KEPT_BYTES: u64 = 1 << 30;
/// The pool file where no size is asked for: half of what is free, within these; unit: GiB.
const COW_GIB: (u64, u64) = (2, 32);
/// How much of a reserved file may be missing: the ends of its file system's own books.
const MISSING_MAX: u64 = 64 << 20;

/// How volumes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeMode {
    /// `xfs` where the pool directory can share blocks, else `cow`; `directory` without loop
    /// devices.
    Auto,
    /// Files on the pool directory's own XFS.
    Xfs,
    /// Files in one XFS that lies in a file.
    Cow,
    /// Files on any file system; no snapshots, slow clones.
    Fast,
    /// Directories on any file system; no snapshots, and sizes are not enforced.
    Directory,
}

/// An open pool.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    dir: PathBuf,
    mode: VolumeMode,
    /// What is left free for others on the same disk; unit: bytes.
    kept: u64,
}

impl Pool {
    /// Opens the pool that the configuration asks for, mounting it if it has to be.
    pub(super) fn open(config: &LocalConfig) -> Result<Self> {
        let _lock = Lock::take(&config.state_dir, "pool-open")?;
        let mode = choose_mode(config)?;
        let dir = match mode {
            VolumeMode::Cow => mount_cow(config)?,
            VolumeMode::Auto | VolumeMode::Xfs | VolumeMode::Fast | VolumeMode::Directory => {
                config.pool_dir.clone()
            }
        };
        for sub in ["volumes", "templates"] {
            private_dir(&dir.join(sub))?;
        }
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
        let is_shared = device(&dir) == device(&config.state_dir);
        let kept = if is_shared { KEPT_BYTES } else { 0 };
        Ok(Self { dir, mode, kept })
    }

    /// The mode in use; never `Auto`.
    pub(super) const fn mode(&self) -> VolumeMode {
        self.mode
    }

    /// Whether snapshots and instant clones can be made.
    pub(super) const fn has_reflink(&self) -> bool {
        matches!(self.mode, VolumeMode::Xfs | VolumeMode::Cow)
    }

    /// Whether volumes are directories, which nothing limits.
    pub(super) const fn has_directories(&self) -> bool {
        matches!(self.mode, VolumeMode::Directory)
    }

    /// The end of the name of a volume's or template's file, or directory.
    pub(super) const fn extension(&self) -> &'static str {
        match self.mode {
            VolumeMode::Directory => "dir",
            VolumeMode::Auto | VolumeMode::Xfs | VolumeMode::Cow | VolumeMode::Fast => "img",
        }
    }

    /// Makes an empty volume or template.
    pub(super) fn format(&self, file: &Path, bytes: u64, options: &[&str]) -> Result<()> {
        if self.has_directories() {
            remove_volume(file)?;
            return fs::create_dir(file).map_err(io("make volume", file.display()));
        }
        loops::format(file, bytes, options)
    }

    /// The disk that volumes lie on when they are directories; `None` if their file system lies on
    /// none of its own.
    pub(super) fn disk(&self) -> Option<Device> {
        Device::below(&self.dir)
    }

    /// Directory of volume files.
    pub(super) fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    /// Directory of templates.
    pub(super) fn templates(&self) -> PathBuf {
        self.dir.join("templates")
    }

    /// Makes `target` a copy of `source`: sharing its blocks where the pool can, else block by
    /// block, leaving holes where the source has them.
    pub(super) fn copy(&self, source: &Path, target: &Path) -> Result<()> {
        let what = "clone volume";
        if self.has_directories() {
            return copy_directory(source, target);
        }
        let from = File::open(source).map_err(io(what, source.display()))?;
        let to = File::create(target).map_err(io(what, target.display()))?;
        if self.has_reflink() {
            return sys::reflink(&from, &to).map_err(errno(what, target.display()));
        }
        copy_sparse(&from, &to).map_err(io(what, target.display()))
    }

    /// Bytes that volumes may have in all, if everything they promise were written.
    pub(super) fn capacity_bytes(&self, own_bytes: u64) -> Result<u64> {
        let facts = statvfs(&self.dir).map_err(errno("measure pool", self.dir.display()))?;
        let unit = facts.fragment_size();
        if self.mode == VolumeMode::Cow {
            // Nobody else writes here; the file system keeps some for itself.
            let total = facts.blocks() * unit;
            return Ok(total - total / 50 - allocated_in(&self.templates()));
        }
        Ok((facts.blocks_available() * unit + own_bytes).saturating_sub(self.kept))
    }

    /// Lets a pool go that lies in a file; it must not be in use.
    pub(super) fn close(&self) -> Result<()> {
        if self.mode != VolumeMode::Cow || !is_mounted(&self.dir) {
            return Ok(());
        }
        umount2(&self.dir, MntFlags::empty()).map_err(errno("close pool", self.dir.display()))
    }
}

/// Bytes that a file, or everything in a directory, really has on disk.
pub(super) fn allocated(file: &Path) -> u64 {
    let Ok(facts) = fs::symlink_metadata(file) else {
        return 0;
    };
    let below = if facts.is_dir() {
        allocated_in(file)
    } else {
        0
    };
    facts.blocks() * 512 + below
}

/// Removes a volume, file or directory, if it is there.
pub(super) fn remove_volume(file: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(file) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(file),
        Ok(_) => fs::remove_file(file),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove volume", file.display())(e))
        }
        _ => Ok(()),
    }
}

/// Copies what lies in a directory into a new one, and waits until it is on disk.
fn copy_directory(source: &Path, target: &Path) -> Result<()> {
    let what = "clone volume";
    remove_volume(target)?;
    let text = |path: &Path| path.display().to_string();
    let words = [
        "--archive",
        "--reflink=auto",
        "--",
        &text(source),
        &text(target),
    ];
    process::run(what, "cp", &words, None)?;
    sync_file_system(target)
}

/// Waits until what was written to a volume's file system is on disk.
pub(super) fn sync_file_system(at: &Path) -> Result<()> {
    let opened = File::open(at).map_err(io("flush volume", at.display()))?;
    nix::unistd::syncfs(&opened).map_err(errno("flush volume", at.display()))
}

fn allocated_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries.flatten().map(|e| allocated(&e.path())).sum()
}

fn choose_mode(config: &LocalConfig) -> Result<VolumeMode> {
    let path = config.state_dir.join("pool-mode.json");
    let kept: Option<VolumeMode> = read_json(&path)?;
    if let Some(kept) = kept {
        if !matches!(config.volume_mode, VolumeMode::Auto) && config.volume_mode != kept {
            let why = format!(
                "volumes here were made in mode {kept:?}, the configuration says {:?}: put it \
                 back, or use a new state directory",
                config.volume_mode
            );
            return Err(rejected(WHAT, why));
        }
        return Ok(kept);
    }
    fs::create_dir_all(&config.pool_dir).map_err(io(WHAT, config.pool_dir.display()))?;
    let mode = match config.volume_mode {
        VolumeMode::Auto if !loops::are_there() => VolumeMode::Directory,
        VolumeMode::Auto if can_reflink(&config.pool_dir) => VolumeMode::Xfs,
        VolumeMode::Auto => VolumeMode::Cow,
        VolumeMode::Xfs if !can_reflink(&config.pool_dir) => {
            let why = format!(
                "{} is not on an XFS with reflink: make one, or choose cow or fast",
                config.pool_dir.display()
            );
            return Err(rejected(WHAT, why));
        }
        chosen => chosen,
    };
    write_json(&path, &mode)?;
    Ok(mode)
}

/// Whether two files in this directory can share blocks: tried, not guessed from a name.
pub(super) fn can_reflink(dir: &Path) -> bool {
    let try_it = || {
        let a = tempfile_in(dir, "a")?;
        let b = tempfile_in(dir, "b")?;
        a.write_all_at(&[1; 4096], 0)?;
        sys::reflink(&a, &b).map_err(std::io::Error::from)
    };
    try_it().is_ok()
}

/// A file without a name.
fn tempfile_in(dir: &Path, name: &str) -> std::io::Result<File> {
    let path = dir.join(format!(".coffer-probe-{}-{name}", std::process::id()));
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn mount_cow(config: &LocalConfig) -> Result<PathBuf> {
    let dir = config.state_dir.join("pool");
    fs::create_dir_all(&dir).map_err(io(WHAT, dir.display()))?;
    if is_mounted(&dir) {
        return Ok(dir);
    }
    let image = config.state_dir.join("pool.img");
    if image.exists() {
        // One of an earlier version, or one that was trimmed since.
        if let Err(error) = reserve(config, &image) {
            tracing::warn!(%error, "the volume pool is not reserved on its disk");
        }
    } else {
        make_cow(config, &image)?;
    }
    loops::mount_pool(&image, &dir)?;
    Ok(dir)
}

fn make_cow(config: &LocalConfig, image: &Path) -> Result<()> {
    let part = image.with_extension("part");
    // Of a start that was killed; it would count as taken.
    remove_file(&part)?;
    let gib = match u64::from(config.cow_pool_gib) {
        0 => ((free_bytes(config)? / 2) >> 30).clamp(COW_GIB.0, COW_GIB.1),
        asked => asked,
    };
    require(config, gib << 30)?;
    let made = loops::format(&part, gib << 30, &[]).and_then(|()| reserve(config, &part));
    if let Err(error) = made {
        remove_file(&part)?;
        return Err(error);
    }
    fs::rename(&part, image).map_err(io(WHAT, image.display()))
}

/// Gives a sparse file its blocks, unwritten: 40 ms for 24 GiB on ext4. A file system that cannot
/// leaves it sparse, and the doctor says so.
fn reserve(config: &LocalConfig, file: &Path) -> Result<()> {
    let missing = unreserved(file);
    if missing <= MISSING_MAX {
        return Ok(());
    }
    // A reservation that fails half way keeps what it got, which would be the whole disk.
    require(config, missing)?;
    let opened = File::options()
        .write(true)
        .open(file)
        .map_err(io(WHAT, file.display()))?;
    let bytes = opened.metadata().map_err(io(WHAT, file.display()))?.len();
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    match fallocate(&opened, FallocateFlags::empty(), 0, length) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(errno(WHAT, file.display())(e)),
    }
}

/// Bytes of a file that have no place on its disk yet; zero for none.
pub(super) fn unreserved(file: &Path) -> u64 {
    let facts = fs::metadata(file).ok();
    let missing = facts.map_or(0, |m| m.len().saturating_sub(m.blocks() * 512));
    if missing > MISSING_MAX { missing } else { 0 }
}

/// Refuses to take so much of the disk that the rest of the host would be left with too little.
fn require(config: &LocalConfig, bytes: u64) -> Result<()> {
    let free = free_bytes(config)?;
    if bytes + KEPT_BYTES <= free {
        return Ok(());
    }
    let gib = |bytes: u64| bytes.div_ceil(1 << 30);
    Err(crate::ProviderError::QuotaExceeded {
        what: WHAT,
        why: format!(
            "a pool needs {} GiB and leaves {} GiB to the rest, {} has {} GiB free: lower \
             local.cow_pool_gib or free space",
            gib(bytes),
            gib(KEPT_BYTES),
            config.state_dir.display(),
            free >> 30
        ),
    })
}

fn free_bytes(config: &LocalConfig) -> Result<u64> {
    let facts = statvfs(&config.state_dir).map_err(errno(WHAT, config.state_dir.display()))?;
    Ok(facts.blocks_available() * facts.fragment_size())
}

/// Whether an XFS of its own is mounted at `dir`.
fn is_mounted(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    let is_xfs = statfs(dir).is_ok_and(|s| s.filesystem_type() == XFS_SUPER_MAGIC);
    is_xfs
        && dir
            .parent()
            .is_some_and(|parent| device(parent) != device(dir))
}

fn copy_sparse(from: &File, to: &File) -> std::io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let end_of = |at: i64| lseek(from, at, Whence::SeekHole);
    let mut at = 0_i64;
    // No more data after the last hole shows as ENXIO.
    while let Ok(start) = lseek(from, at, Whence::SeekData) {
        let end = end_of(start)?;
        copy_range(from, to, start, end)?;
        at = end;
    }
    to.sync_all()
}

fn copy_range(from: &File, to: &File, start: i64, end: i64) -> std::io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let left = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        let (source, target) = (Some(&mut read_at), Some(&mut write_at));
        if nix::fcntl::copy_file_range(from, source, to, target, left)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_copied_whole_and_measured() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.dir"), dir.path().join("b.dir"));
        let pool = Pool {
            dir: dir.path().to_owned(),
            mode: VolumeMode::Directory,
            kept: 0,
        };
        pool.format(&a, 1 << 30, &[]).unwrap();
        fs::create_dir(a.join("sub")).unwrap();
        fs::write(a.join("sub/file"), vec![1; 1 << 20]).unwrap();
        for _ in 0..2 {
            // What a copy that was cut short left is no part of the next.
            fs::create_dir_all(b.join("left")).unwrap();
            pool.copy(&a, &b).unwrap();
            assert!(!b.join("left").exists());
        }
        assert_eq!(fs::read(b.join("sub/file")).unwrap().len(), 1 << 20);
        assert!((1 << 20..2 << 20).contains(&allocated(&b)));
        remove_volume(&b).unwrap();
        remove_volume(&b).unwrap();
        assert_eq!(allocated(&b), 0);
    }

    #[test]
    fn a_sparse_copy_is_equal_and_stays_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"later", 40 << 20).unwrap();
        let pool = Pool {
            dir: dir.path().to_owned(),
            mode: VolumeMode::Fast,
            kept: 0,
        };
        pool.copy(&a, &b).unwrap();
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap());
        assert!(allocated(&b) < 1 << 20);
    }
}

//! The state directory: one Coffer at a time, its master key, its tag on the host.
//!
//! Stored here: the lock with its holder, the master key (only its owner may read it), and a short
//! tag that marks what this Coffer makes on the host. Everything else is in the store. Two more
//! locks keep the tools apart: `roles.lock` is shared by whatever changes the state and held alone
//! by what replaces it, `keys.lock` is shared by what copies the keys and held alone by what
//! rotates them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use coffer_control::clock::{Entropy, SystemEntropy};
use coffer_control::secrets::{KeySource, MasterKeys};

use crate::refusal::{refused, usage};
use crate::state::bundle::sync_dir;

/// Only the owner of the state directory may look into it.
const PRIVATE: u32 = 0o700;

/// File of the master key.
pub(crate) const MASTER_KEY: &str = "master.key";

/// The one before, while it is rotated.
pub(crate) const MASTER_KEY_OLD: &str = "master.key.old";

/// File with the tag.
pub(crate) const TAG: &str = "tag";

/// How the holder of the lock is named in it, before its process id.
const HOLDER: &str = "coffer with process id ";

/// How long children of a killed Coffer may take to let its lock go.
const ORPHANS_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A state directory that this process uses.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held as long as the process lives.
    _locks: Vec<File>,
}

impl StateDir {
    /// Opens or makes the directory. With `is_exclusive`, nobody else may hold it.
    pub(crate) fn open(path: &Path, is_exclusive: bool) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(path)
            .with_context(|| format!("make state directory {}", path.display()))?;
        close(path)?;
        let lock = is_exclusive.then(|| lock(path)).transpose()?;
        sweep(path);
        Ok(Self {
            path: path.to_owned(),
            _locks: lock.into_iter().collect(),
        })
    }

    /// Opens or makes the directory for a role of Coffer: nobody restores or upgrades it meanwhile.
    pub(crate) fn enter(path: &Path, is_exclusive: bool) -> anyhow::Result<Self> {
        Self::open(path, is_exclusive)?.sharing_roles()
    }

    /// Opens a directory that a Coffer has started on, for a tool that changes something of it:
    /// nobody restores or upgrades it meanwhile.
    pub(crate) fn change(path: &Path) -> anyhow::Result<Self> {
        Self::existing(path)?.sharing_roles()
    }

    fn sharing_roles(mut self) -> anyhow::Result<Self> {
        let roles = lock_file(&self.path, ROLES_LOCK)?;
        roles.try_lock_shared().map_err(|_| {
            let shown = self.path.display();
            refused(format!(
                "{shown} is being restored or upgraded: try again when that has ended"
            ))
        })?;
        self._locks.push(roles);
        Ok(self)
    }

    /// As long as the directory is open, nobody rotates the master key.
    pub(crate) fn keeping_keys(mut self) -> anyhow::Result<Self> {
        let keys = lock_file(&self.path, KEYS_LOCK)?;
        let rotating = "the master key is being rotated: try again when that has ended";
        keys.try_lock_shared().map_err(|_| refused(rotating))?;
        self._locks.push(keys);
        Ok(self)
    }

    /// As long as the directory is open, nobody else rotates the master key, and nobody copies it.
    pub(crate) fn rotating_keys(mut self) -> anyhow::Result<Self> {
        let keys = lock_file(&self.path, KEYS_LOCK)?;
        let in_use = "the master key is being rotated or backed up: try again when that ended";
        keys.try_lock().map_err(|_| refused(in_use))?;
        self._locks.push(keys);
        Ok(self)
    }

    /// Opens or makes the directory while no role of Coffer runs on it.
    pub(crate) fn alone(path: &Path) -> anyhow::Result<Self> {
        let mut state = Self::open(path, true)?;
        let roles = lock_file(path, ROLES_LOCK)?;
        roles.try_lock().map_err(|_| {
            let shown = path.display();
            refused(format!(
                "a role of Coffer runs on {shown}, or a tool that changes its state: stop it \
                 first; databases go on serving"
            ))
        })?;
        state._locks.push(roles);
        Ok(state)
    }

    /// Opens a directory that a Coffer has started on, and makes none: what is printed of a new one
    /// would look right and be worth nothing.
    pub(crate) fn existing(path: &Path) -> anyhow::Result<Self> {
        if !Self::is_begun(path) {
            let shown = path.display();
            return Err(usage(format!(
                "no Coffer has started on the state directory {shown}: give the --state-dir or \
                 the --config it runs with"
            )));
        }
        Self::open(path, false)
    }

    /// Whether a Coffer has started on the directory. One that lost its key or its store is one
    /// all the same, and said to be.
    pub(crate) fn is_begun(path: &Path) -> bool {
        let marks = [MASTER_KEY, TAG, "coffer.db"];
        marks.iter().any(|name| path.join(name).exists())
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The master keys; made at the first start.
    pub(crate) fn new_master_keys(&self) -> anyhow::Result<MasterKeys> {
        once(&self.join(MASTER_KEY), || {
            let mut key = [0; 32];
            SystemEntropy.fill(&mut key);
            key.to_vec()
        })?;
        self.master_keys()
    }

    /// Whether there is a master key.
    pub(crate) fn has_master_key(&self) -> bool {
        self.join(MASTER_KEY).exists()
    }

    /// The master keys that there are.
    pub(crate) fn master_keys(&self) -> anyhow::Result<MasterKeys> {
        KeyFiles::below(&self.path).load()
    }

    /// Where they are read again when they are rotated.
    pub(crate) fn key_files(&self) -> KeyFiles {
        KeyFiles::below(&self.path)
    }

    /// The tag, if there is one: for who looks, and makes none.
    pub(crate) fn known_tag(&self) -> Option<String> {
        let tag = fs::read_to_string(self.join(TAG)).ok()?;
        (!tag.is_empty()).then_some(tag)
    }

    /// Five characters that mark what this Coffer makes on the host; made at the first start.
    pub(crate) fn tag(&self) -> anyhow::Result<String> {
        let bytes = once(&self.join(TAG), || {
            let random = SystemEntropy.bytes16();
            let digits = b"abcdefghijklmnopqrstuvwxyz234567";
            random[..5]
                .iter()
                .map(|b| digits[usize::from(b % 32)])
                .collect()
        })?;
        String::from_utf8(bytes).context("the file 'tag' in the state directory is damaged")
    }
}

/// Volumes and keys lie below: a directory that was made by hand is closed to others too. What is
/// closed is left alone, as it may be read-only.
fn close(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let facts = fs::metadata(path).with_context(|| format!("look at {shown}"))?;
    if facts.permissions().mode() & 0o7777 == PRIVATE {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))
        .with_context(|| format!("close state directory {shown} to others"))
}

/// What the name of a file that is being written ends in, before its writer's process id; those of
/// the first start's credentials end so too.
const NEXT: &str = "new-";

/// Removes what processes were writing here when they were killed; it may hold a key or a password.
fn sweep(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let ending = path.extension().and_then(|e| e.to_str());
        let writer = ending.and_then(|e| e.strip_prefix(NEXT)?.parse::<u32>().ok());
        let is_left = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
        if writer.is_some_and(is_left) {
            // One that stays is tried again at the next start.
            fs::remove_file(&path).ok();
        }
    }
}

/// The files with the master keys of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct KeyFiles {
    current: PathBuf,
    previous: PathBuf,
}

impl KeyFiles {
    fn below(path: &Path) -> Self {
        Self {
            current: path.join(MASTER_KEY),
            previous: path.join(MASTER_KEY_OLD),
        }
    }

    /// Reads them. The one before is read first: what is moved there meanwhile is then read twice,
    /// and never not at all.
    fn load(&self) -> anyhow::Result<MasterKeys> {
        loop {
            let keys = MasterKeys {
                current: read_key(&self.current)?,
                previous: match read_key(&self.previous) {
                    Ok(key) => Some(key),
                    // The rotation that kept it may end between a look at it and its reading.
                    Err(_) if !self.previous.exists() => None,
                    Err(error) => return Err(error),
                },
            };
            // A rotation between the two reads would leave a pair that never was.
            if read_key(&self.current)? == keys.current {
                return Ok(keys);
            }
        }
    }
}

impl KeySource for KeyFiles {
    fn read(&self) -> Option<MasterKeys> {
        match self.load() {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "read the master key");
                None
            }
        }
    }
}

fn read_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    bytes.try_into().map_err(|_| {
        anyhow::anyhow!(
            "{} is damaged: it has to hold 32 bytes; restore it from your backup, without it \
             no stored secret can be read",
            path.display()
        )
    })
}

/// Lock of those who change the state, and of those who replace it.
const ROLES_LOCK: &str = "roles.lock";
/// Lock of those who copy the keys, and of those who rotate them.
const KEYS_LOCK: &str = "keys.lock";

fn lock_file(path: &Path, name: &str) -> anyhow::Result<File> {
    let lock = path.join(name);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock);
    // Where nothing can be written, a lock is held all the same by whoever looks or copies.
    let opened = match opened {
        Err(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            File::open(&lock).or_else(|_| File::open(path))
        }
        opened => opened,
    };
    opened.with_context(|| format!("open {name} in {}", path.display()))
}

/// Writes a file that only its owner can read, whole or not at all, onto the disk; one that is
/// there stays.
pub(crate) fn put_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    once(path, || bytes.to_vec()).map(drop)
}

/// The file's content; what `make` gives, if it is not there.
fn once(path: &Path, make: impl FnOnce() -> Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    if !path.exists() {
        // Several processes may start on one state directory at the same moment.
        let next = path.with_extension(format!("{NEXT}{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .with_context(|| format!("write {shown}"))?;
        file.write_all(&make())
            .and_then(|()| file.sync_all())
            .context("write state")?;
        // A link does not replace a file that another process made meanwhile.
        let linked = fs::hard_link(&next, path);
        fs::remove_file(&next).with_context(|| format!("write {shown}"))?;
        if let Err(error) = linked
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("write {shown}"));
        }
        // A key that seals something has to be there after a power cut, as what it sealed is.
        sync_dir(path)?;
    }
    fs::read(path).with_context(|| format!("read {shown}"))
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
        .with_context(|| {
            let shown = path.display();
            format!("write in {shown}: nothing was changed, and databases go on serving")
        })?;
    let mut left = ORPHANS_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {
                let holder = holder(&mut file)?;
                if left.is_zero() || is_alive(&holder) {
                    let holder = match holder.as_str() {
                        "" => "another process",
                        named => named,
                    };
                    let shown = path.display();
                    return Err(refused(format!(
                        "{shown} is in use by {holder}: stop that Coffer first, or give another \
                         --state-dir"
                    )));
                }
                pause();
                left = left.saturating_sub(PAUSE);
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).context("lock state directory");
            }
        }
    }
    file.set_len(0).context("write the lock")?;
    file.rewind().context("write the lock")?;
    writeln!(file, "{HOLDER}{}", std::process::id()).context("write the lock")?;
    Ok(file)
}

/// Who holds the lock, in words.
fn holder(file: &mut File) -> anyhow::Result<String> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .context("read the lock")?;
    Ok(text.trim().to_owned())
}

/// Whether the holder's process runs. A killed one may leave a child that has not begun its own
/// program yet and has the lock for that moment.
fn is_alive(holder: &str) -> bool {
    holder
        .strip_prefix(HOLDER)
        .is_none_or(|pid| Path::new("/proc").join(pid).exists())
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing else runs in this process yet"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_into_a_wrong_directory_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = dir.path().join("wrong");
        for path in [dir.path(), &wrong] {
            let error = StateDir::existing(path).unwrap_err().to_string();
            assert!(error.contains("--state-dir"), "{error}");
        }
        assert!(!wrong.exists() && fs::read_dir(dir.path()).unwrap().next().is_none());
        StateDir::open(&wrong, false)
            .unwrap()
            .new_master_keys()
            .unwrap();
        assert!(StateDir::existing(&wrong).is_ok());
    }

    #[test]
    fn what_a_killed_process_was_writing_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("admin.{NEXT}{}", std::process::id());
        // No process has this id: the kernel's greatest is 2^22.
        let left = ["master.new-99999999", "demo.new-99999999"];
        let kept = ["tag", "notes.new-year", &own];
        for name in left.iter().chain(&kept) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        StateDir::open(dir.path(), false).unwrap();
        for name in left {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        for name in kept {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn tools_that_would_disturb_each_other_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        StateDir::open(dir.path(), false)
            .unwrap()
            .new_master_keys()
            .unwrap();
        let existing = || StateDir::existing(dir.path()).unwrap();
        let change = || StateDir::change(dir.path()).unwrap();
        let refused = |state: anyhow::Result<StateDir>| state.unwrap_err().to_string();
        // Two backups at a time, but none while the key is rotated, and one rotation only.
        let backups = [existing(), existing()].map(|state| state.keeping_keys().unwrap());
        let rotation = refused(change().rotating_keys());
        assert!(rotation.contains("rotated or backed up"), "{rotation}");
        drop(backups);
        let rotation = change().rotating_keys().unwrap();
        assert!(refused(change().rotating_keys()).contains("try again"));
        assert!(refused(existing().keeping_keys()).contains("is being rotated"));
        // Nor is the state replaced under a rotation, or changed while it is replaced.
        let alone = refused(StateDir::alone(dir.path()));
        assert!(alone.contains("a tool that changes"), "{alone}");
        drop(rotation);
        let alone = StateDir::alone(dir.path()).unwrap();
        assert!(refused(StateDir::change(dir.path())).contains("restored or upgraded"));
        drop(alone);
        StateDir::change(dir.path()).unwrap();
    }

    #[test]
    fn who_looks_makes_no_tag() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path(), false).unwrap();
        assert_eq!(state.known_tag(), None);
        assert!(!state.join(TAG).exists());
        let made = state.tag().unwrap();
        assert_eq!(state.known_tag(), Some(made));
    }

    #[test]
    fn a_child_of_a_killed_holder_is_waited_for_and_a_living_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        // No process has this id: the kernel's greatest is 2^22.
        fs::write(dir.path().join("lock"), format!("{HOLDER}99999999")).unwrap();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| lock(dir.path()).map(drop));
            drop(file);
            next.join().unwrap().unwrap();
        });
    }
}

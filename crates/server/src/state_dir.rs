//! The state directory: one Coffer at a time, its master key, its tag on the host.
//!
//! Stored here: the lock with its holder, the master key (only its owner may read it), and a short
//! tag that marks what this Coffer makes on the host. Everything else is in the store.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use coffer_control::clock::{Entropy, SystemEntropy};

/// Only the owner of the state directory may look into it.
const PRIVATE: u32 = 0o700;

/// A state directory that this process uses.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held as long as the process lives.
    _lock: Option<File>,
}

impl StateDir {
    /// Opens or makes the directory. With `is_exclusive`, nobody else may hold it.
    pub(crate) fn open(path: &Path, is_exclusive: bool) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(path)
            .with_context(|| format!("make state directory {}", path.display()))?;
        // Volumes and keys lie below: a directory that was made by hand is closed too.
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .with_context(|| format!("close state directory {} to others", path.display()))?;
        let lock = is_exclusive.then(|| lock(path)).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The master key, made at the first start.
    pub(crate) fn master_key(&self) -> anyhow::Result<[u8; 32]> {
        let path = self.join("master.key");
        let bytes = once(&path, || {
            let mut key = [0; 32];
            SystemEntropy.fill(&mut key);
            key.to_vec()
        })?;
        bytes.try_into().map_err(|_| {
            anyhow::anyhow!(
                "{} is damaged: it has to hold 32 bytes; restore it from your backup, without it \
                 no stored secret can be read",
                path.display()
            )
        })
    }

    /// Five characters that mark what this Coffer makes on the host.
    pub(crate) fn tag(&self) -> anyhow::Result<String> {
        let bytes = once(&self.join("tag"), || {
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

/// The file's content; what `make` gives, if it is not there.
fn once(path: &Path, make: impl FnOnce() -> Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    if !path.exists() {
        // Several processes may start on one state directory at the same moment.
        let next = path.with_extension(format!("new-{}", std::process::id()));
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
        .with_context(|| format!("open the lock in {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).context("read the lock")?;
            bail!(
                "{} is in use by {}: stop that Coffer first, or give another --state-dir",
                path.display(),
                if holder.trim().is_empty() {
                    "another process"
                } else {
                    holder.trim()
                }
            );
        }
        Err(fs::TryLockError::Error(error)) => return Err(error).context("lock state directory"),
    }
    file.set_len(0).context("write the lock")?;
    writeln!(file, "coffer with process id {}", std::process::id()).context("write the lock")?;
    Ok(file)
}

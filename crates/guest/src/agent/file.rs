//! Files of the agent's, replaced as a whole so that a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{GuestError, Result};

/// How much of a replacement outlives a loss of power when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Everything.
    Whole,
    /// The content; the name with the next whole one in the same directory.
    Content,
    /// Nothing: the file is compared and written anew at every start, and the first start of an
    /// instance does not wait for the disk.
    Nothing,
}

/// The text of a file, if it can be read.
pub(crate) fn read_if_there(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Replaces a file.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, durable: Durable) -> Result<()> {
    write(path, content, mode, durable).map_err(GuestError::io(format!("write {}", path.display())))
}

fn write(path: &Path, content: &[u8], mode: u32, durable: Durable) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(new)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    if durable != Durable::Nothing {
        file.sync_all()?;
    }
    fs::rename(new, path)?;
    match path.parent() {
        Some(parent) if durable == Durable::Whole => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

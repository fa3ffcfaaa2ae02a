//! Files of the agent's, replaced as a whole so that a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{GuestError, Result};

/// The text of a file, if it can be read.
pub(crate) fn read_if_there(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Replaces a file durably.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    write(path, content, mode).map_err(GuestError::io(format!("write {}", path.display())))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(new)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

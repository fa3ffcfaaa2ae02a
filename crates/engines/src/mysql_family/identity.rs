//! What tells a server from every other, in files of its data directory; they are written by a
//! program under the engine's user.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::Dialect;
use super::render::IDENTITY;

/// Directory beside the data for files of statements that do not fit into memory.
pub(super) const TEMP: &str = "tmp";

/// Gives the stopped server the identity of this UUID; the same again changes nothing.
pub(super) fn write(dialect: &dyn Dialect, datadir: &Path, uuid: &str) -> io::Result<()> {
    let is_uuid = uuid.len() == 36 && uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !is_uuid {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a UUID"));
    }
    let temp = datadir.with_file_name(TEMP);
    fs::create_dir_all(&temp)?;
    let number = format!("[mysqld]\nserver_id = {}\n", server_id(uuid));
    for (name, content) in dialect.identity_files(uuid) {
        put(datadir, name, &content)?;
    }
    put(datadir, IDENTITY, &number)?;
    fs::File::open(datadir)?.sync_all()
}

fn put(dir: &Path, name: &str, content: &str) -> io::Result<()> {
    let path = dir.join(name);
    if fs::read(&path).is_ok_and(|known| known == content.as_bytes()) {
        return Ok(());
    }
    let part = dir.join(format!("{name}.part"));
    let mut file = fs::File::create(&part)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

/// The server's number among its replicas: from the random end of its UUID, never 0.
fn server_id(uuid: &str) -> u32 {
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let end = digits
        .get(digits.len().saturating_sub(8)..)
        .unwrap_or_default();
    u32::from_str_radix(end, 16).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_uuid() {
        assert_eq!(
            server_id("01890a5d-ac96-774b-bcce-b302099a8057"),
            0x099a_8057
        );
        assert_eq!(server_id("01890a5d-ac96-774b-bcce-b30200000000"), 1);
    }
}

//! The system identifier of a stopped cluster, in `global/pg_control` and in the log. Runs under
//! the engine's user as `engine-tool postgresql identity`.
//!
//! Layout of `pg_control`, the same from 15 to 18: identifier (8 bytes), two versions (4 each),
//! state (4), more, and a CRC-32C over everything before it, whose offset differs by version and
//! is found by trying. Each segment of the log begins with a long page header that repeats the
//! identifier; it is under no checksum, so it is changed in place, which spares `pg_resetwal` and
//! the 16 MiB that it writes. Every step may be repeated; a marker says that all are done.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::postgresql::runtime::LOCK_FILE;
use crate::tool;

/// Name of the file in the data directory that says which identity is complete.
const MARKER: &str = "coffer.identity";
/// Offset of the state, and its values for a clean stop (as primary, as replica).
const STATE_OFFSET: usize = 16;
const STATES_CLEAN: [u32; 2] = [1, 2];
/// Offsets at which the CRC is looked for.
const CRC_OFFSETS: std::ops::Range<usize> = 200..504;
/// The long page header of the log: offset and bit of its flag, offset of the identifier, size.
const LOG_FLAGS_OFFSET: usize = 2;
const LOG_LONG_HEADER: u8 = 0x02;
const LOG_IDENTIFIER_OFFSET: usize = 24;
const LOG_HEADER_BYTES: usize = 40;

/// What [`write()`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The cluster has this identity.
    Done,
    /// The cluster was not stopped cleanly: it has to recover first. Nothing was changed.
    Unclean,
}

impl Identity {
    /// The word on the tool's standard output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unclean => "unclean",
        }
    }
}

/// Gives the stopped cluster the identifier that belongs to `identity` (UUID text).
pub fn write(pgdata: &Path, identity: &str) -> io::Result<Identity> {
    let marker = pgdata.join(MARKER);
    if fs::read_to_string(&marker).is_ok_and(|known| known.trim() == identity) {
        return Ok(Identity::Done);
    }
    let lock = pgdata.join(LOCK_FILE);
    tool::clear_lock(&lock)?;
    if lock.exists() {
        // Left by a crash, or by a copy of a running cluster: single-user mode clears it.
        return Ok(Identity::Unclean);
    }
    let path = pgdata.join("global/pg_control");
    let mut bytes = fs::read(&path)?;
    let crc_offset = find_crc(&bytes)
        .ok_or_else(|| io::Error::other("global/pg_control is damaged: no checksum in it fits"))?;
    if !STATES_CLEAN.contains(&read_u32(&bytes, STATE_OFFSET)) {
        return Ok(Identity::Unclean);
    }
    let new = system_identifier(identity)?.to_le_bytes();
    let old = read(pgdata)?.to_le_bytes();
    rewrite_log(&pgdata.join("pg_wal"), old, new)?;
    bytes[..8].copy_from_slice(&new);
    let crc = crc32c::crc32c(&bytes[..crc_offset]);
    bytes[crc_offset..crc_offset + 4].copy_from_slice(&crc.to_le_bytes());
    replace(&path, &bytes)?;
    replace(&marker, identity.as_bytes())?;
    Ok(Identity::Done)
}

/// The system identifier of the cluster.
pub fn read(pgdata: &Path) -> io::Result<u64> {
    let bytes = fs::read(pgdata.join("global/pg_control"))?;
    let head = bytes
        .first_chunk::<8>()
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_le_bytes(*head))
}

/// Changes the identifier in every segment of the log that carries the old one.
fn rewrite_log(dir: &Path, old: [u8; 8], new: [u8; 8]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_segment = name.len() == 24
            && name
                .to_str()
                .is_some_and(|name| name.chars().all(|c| c.is_ascii_hexdigit()));
        if !is_segment {
            continue;
        }
        let file = File::options().read(true).write(true).open(entry.path())?;
        let mut header = [0_u8; LOG_HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let is_long = header[LOG_FLAGS_OFFSET] & LOG_LONG_HEADER != 0;
        let place = LOG_IDENTIFIER_OFFSET..LOG_IDENTIFIER_OFFSET + 8;
        if is_long && header[place] == old {
            file.write_all_at(&new, LOG_IDENTIFIER_OFFSET as u64)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Both halves of the UUID folded into 63 bits: PostgreSQL shows the identifier as a signed
/// number.
fn system_identifier(identity: &str) -> io::Result<u64> {
    let digits: String = identity.chars().filter(|c| *c != '-').collect();
    let value = match u128::from_str_radix(&digits, 16) {
        Ok(value) if digits.len() == 32 => value.to_le_bytes(),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "identity is not a UUID",
            ));
        }
    };
    let mut folded = [0_u8; 8];
    for (i, byte) in folded.iter_mut().enumerate() {
        *byte = value[i] ^ value[15 - i];
    }
    Ok((u64::from_le_bytes(folded) & (u64::MAX >> 1)).max(1))
}

fn find_crc(bytes: &[u8]) -> Option<usize> {
    CRC_OFFSETS
        .step_by(4)
        .take_while(|offset| offset + 4 <= bytes.len())
        .find(|offset| crc32c::crc32c(&bytes[..*offset]) == read_u32(bytes, *offset))
}

fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let four = bytes
        .get(offset..offset + 4)
        .and_then(|part| part.first_chunk::<4>());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

/// Replaces a file as a whole, durably; private to its owner.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("coffer-new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(state: u32) -> Vec<u8> {
        let mut bytes = vec![7_u8; 8192];
        bytes[STATE_OFFSET..STATE_OFFSET + 4].copy_from_slice(&state.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn cluster(name: &str, state: u32) -> std::path::PathBuf {
        let dir =
            std::env::temp_dir().join(format!("coffer-identity-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("global")).unwrap();
        fs::write(dir.join("global/pg_control"), control(state)).unwrap();
        fs::create_dir_all(dir.join("pg_wal/summaries")).unwrap();
        let mut segment = vec![7_u8; 8192];
        segment[LOG_FLAGS_OFFSET] = LOG_LONG_HEADER;
        fs::write(dir.join("pg_wal/000000010000000000000001"), &segment).unwrap();
        segment[LOG_IDENTIFIER_OFFSET] = 8;
        fs::write(dir.join("pg_wal/000000010000000000000002"), &segment).unwrap();
        dir
    }

    fn logged(dir: &Path, number: u32) -> u64 {
        let bytes = fs::read(dir.join(format!("pg_wal/0000000100000000{number:08}"))).unwrap();
        u64::from_le_bytes(bytes[24..32].try_into().unwrap())
    }

    #[test]
    fn writes_once_and_stays_readable() {
        let dir = cluster("once", 1);
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let foreign = logged(&dir, 2);
        assert_eq!(write(&dir, id).unwrap(), Identity::Done);
        let first = read(&dir).unwrap();
        assert_eq!(logged(&dir, 1), first);
        assert_eq!(
            logged(&dir, 2),
            foreign,
            "a segment of another cluster was touched"
        );
        // As a crash before the marker leaves it.
        fs::remove_file(dir.join(MARKER)).unwrap();
        assert_eq!(write(&dir, id).unwrap(), Identity::Done);
        assert_eq!(read(&dir).unwrap(), first);
        let other = "01890a5d-ac96-774b-bcce-b302099a8058";
        assert_eq!(write(&dir, other).unwrap(), Identity::Done);
        assert_ne!(read(&dir).unwrap(), first);
        assert_eq!(logged(&dir, 1), read(&dir).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn refuses_what_must_recover_first() {
        let dir = cluster("unclean", 6);
        let before = read(&dir).unwrap();
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(write(&dir, id).unwrap(), Identity::Unclean);
        assert_eq!(read(&dir).unwrap(), before);
        assert!(write(&dir, "no uuid").is_ok_and(|found| found == Identity::Unclean));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn refuses_a_damaged_file() {
        let dir = cluster("damaged", 1);
        fs::write(dir.join("global/pg_control"), vec![1_u8; 8192]).unwrap();
        assert!(write(&dir, "01890a5d-ac96-774b-bcce-b302099a8057").is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}

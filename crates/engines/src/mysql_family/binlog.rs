//! The binary log after a death.
//!
//! The log is the coordinator of commits: what InnoDB has prepared is committed at the next start
//! if it stands in the log, and is taken back if not. That is only looked at if the log was left
//! open. MariaDB closes it at a stop before InnoDB has flushed its last commits, and a server that
//! is killed between the two refuses every start: "Found 1 prepared transactions!". A log that is
//! marked open is read to its end, and the commits are settled.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The file that names the logs, the newest last.
const INDEX: &str = "binlog.index";
/// How a log begins.
const MAGIC: &[u8] = b"\xfebin";
/// The first event, which describes the others: its type, at this place in the file.
const DESCRIPTION: (usize, u8) = (8, 15);
/// The first byte of its flags, and the bit that says that the log is in use. The event's checksum
/// is made as if it were not set (`LOG_EVENT_BINLOG_IN_USE_F` in `sql/log_event.h`).
const IN_USE: (usize, u8) = (21, 1);

/// Marks the newest log as open; the server does not run. One that is open, and what is no log or
/// not there, stays as it is.
pub(super) fn reopen(datadir: &Path) -> io::Result<()> {
    let index = match fs::read_to_string(datadir.join(INDEX)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        index => index?,
    };
    let newest = index
        .lines()
        .rev()
        .find_map(|line| Path::new(line.trim()).file_name());
    let Some(newest) = newest else { return Ok(()) };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(datadir.join(newest));
    let log = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        log => log?,
    };
    let mut head = [0_u8; 23];
    let length = log.read_at(&mut head, 0)?;
    let is_log =
        length == head.len() && head.starts_with(MAGIC) && head[DESCRIPTION.0] == DESCRIPTION.1;
    if !is_log || head[IN_USE.0] & IN_USE.1 != 0 {
        return Ok(());
    }
    log.write_all_at(&[head[IN_USE.0] | IN_USE.1], IN_USE.0 as u64)?;
    log.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a log of MariaDB 11.8 begins that was closed.
    const CLOSED: [u8; 24] = [
        0xfe, 0x62, 0x69, 0x6e, 0x58, 0x39, 0x0d, 0x6b, 0x0f, 0x7f, 0xaf, 0x23, 0x34, 0xfc, 0, 0,
        0, 0, 1, 0, 0, 0, 0, 4,
    ];

    #[test]
    fn the_newest_log_is_marked_as_open_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("coffer-binlog-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        reopen(&dir).expect("there is no log yet");
        fs::write(dir.join(INDEX), "./binlog.000001\n./binlog.000002\n").unwrap();
        reopen(&dir).expect("the log is not there");
        for name in ["binlog.000001", "binlog.000002"] {
            fs::write(dir.join(name), CLOSED).unwrap();
        }
        reopen(&dir).unwrap();
        assert_eq!(fs::read(dir.join("binlog.000001")).unwrap(), CLOSED);
        let mut open = CLOSED;
        open[21] = 1;
        assert_eq!(fs::read(dir.join("binlog.000002")).unwrap(), open);
        reopen(&dir).unwrap();
        assert_eq!(fs::read(dir.join("binlog.000002")).unwrap(), open);
        fs::write(dir.join("binlog.000002"), "something else, and long enough").unwrap();
        reopen(&dir).unwrap();
        let kept = fs::read_to_string(dir.join("binlog.000002")).unwrap();
        assert_eq!(kept, "something else, and long enough");
        fs::remove_dir_all(&dir).unwrap();
    }
}

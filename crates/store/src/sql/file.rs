//! A SQLite file as a whole: copied while it is written, checked, and looked at without changing
//! its schema. For backups, upgrades and the operator's look; blocks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::BUSY_TIMEOUT;
use crate::error::{Result, StoreError};
use crate::migrate::{self, TABLE};

/// LIMIT: lines of damage that are told.
const DAMAGE_MAX: usize = 5;

/// The newest schema that this build knows.
pub fn newest_schema() -> i64 {
    migrate::newest()
}

/// What the names of all that belongs to a SQLite file end in.
const ENDS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Whether anything of a SQLite file is there: the file itself, or what belongs to one.
pub fn is_there(path: &Path) -> Option<PathBuf> {
    let mut all = ENDS.iter().map(|end| beside(path, end));
    all.find(|path| path.exists())
}

/// Removes a SQLite file that nobody has open, with all that belongs to it; succeeds when absent.
pub fn remove(path: &Path) -> Result<()> {
    for path in ENDS.iter().map(|end| beside(path, end)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(cannot("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The path whose name goes on with `end`: in the same directory, so that one can take the other's
/// place by a rename.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The schema of a file, by the number of its last migration; 0 if none ever ran.
pub fn schema(path: &Path) -> Result<i64> {
    let connection = reader(path)?;
    let known = "SELECT 1 FROM sqlite_master WHERE name = $1";
    let is_known: Option<i64> = connection
        .query_row(known, [TABLE], |row| row.get(0))
        .optional()?;
    if is_known.is_none() {
        return Ok(0);
    }
    let sql = format!("SELECT COALESCE(MAX(version), 0) FROM {TABLE} WHERE success");
    Ok(connection.query_row(&sql, [], |row| row.get(0))?)
}

/// A setting in a file of whatever schema.
pub fn setting(path: &Path, name: &str) -> Result<Option<String>> {
    let sql = "SELECT value FROM settings WHERE name = $1";
    let found = reader(path)?.query_row(sql, [name], |row| row.get(0));
    Ok(found.optional()?)
}

/// Names of the tables of a file that hold rows, with how many.
pub fn row_counts(path: &Path) -> Result<Vec<(String, i64)>> {
    let connection = reader(path)?;
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut counts = Vec::new();
    for name in names {
        let name = name?;
        let sql = format!("SELECT COUNT(*) FROM \"{name}\"");
        counts.push((name, connection.query_row(&sql, [], |row| row.get(0))?));
    }
    Ok(counts)
}

/// Copies a file that others may be writing, as of one moment; what is given has no file beside it
/// and is on the disk. The target must not be there.
pub fn snapshot(source: &Path, target: &Path) -> Result<()> {
    let from = reader(source)?;
    let make = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target);
    make.map_err(|e| cannot("make", target, e))?;
    let mut to = Connection::open(target)?;
    // All in one step: one transaction that reads, and whoever writes is not held up by it.
    Backup::new(&from, &mut to)?.step(-1)?;
    settle_file(to, target)
}

/// Ends the write-ahead log of a file that nobody else has open, so that the file is all there is.
pub fn settle(path: &Path) -> Result<()> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    settle_file(connection, path)
}

fn settle_file(connection: Connection, path: &Path) -> Result<()> {
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error)?;
    let file = File::open(path).and_then(|file| file.sync_all());
    file.map_err(|e| cannot("write", path, e))
}

/// Reads a whole file: that its pages are whole, its indexes fit, and what is referred to is there.
pub fn check(path: &Path) -> Result<()> {
    examine(path, "PRAGMA integrity_check")?;
    let connection = reader(path)?;
    let sql = "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1";
    let broken: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    match broken {
        None => Ok(()),
        Some(table) => Err(damaged(
            path,
            &format!("a row of {table} refers to nothing"),
        )),
    }
}

/// The quick half of [`check`], for a store in use.
pub fn quick_check(path: &Path) -> Result<()> {
    examine(path, "PRAGMA quick_check")
}

fn examine(path: &Path, pragma: &str) -> Result<()> {
    let found = || -> rusqlite::Result<Vec<String>> {
        let connection = open(path)?;
        let mut statement = connection.prepare(pragma)?;
        let lines = statement.query_map([], |row| row.get(0))?;
        lines.take(DAMAGE_MAX).collect()
    };
    match found() {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => Err(damaged(path, &lines.join("; "))),
        Err(error) => Err(match StoreError::from(error) {
            StoreError::Damaged(why) => damaged(path, &why.to_string()),
            error => cannot_read(path, &error),
        }),
    }
}

fn damaged(path: &Path, why: &str) -> StoreError {
    let problem = format!("the store {} is damaged: {why}", path.display());
    StoreError::DamagedFile { problem }
}

/// What is not there, is somebody else's, or lies on a disk that fails is not damaged.
fn cannot_read(path: &Path, error: &StoreError) -> StoreError {
    let why = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let problem = format!("the store {} cannot be read: {why}", path.display());
    StoreError::Open { problem }
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> StoreError {
    let problem = format!("cannot {what} {}: {error}", path.display());
    StoreError::Open { problem }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = match quiet(path) {
        Some(uri) => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(uri, flags)?
        }
        None => {
            // Read-only would not do: after a crash the log has to be gone through before anything
            // is read.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(path, flags)?
        }
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// How SQLite is told that nobody writes: of a file that was closed whole and lies where nothing
/// can be written, as the log and its index, which it would have beside, cannot be made there.
/// <https://www.sqlite.org/wal.html#read_only_databases>
fn quiet(path: &Path) -> Option<String> {
    let opened = OpenOptions::new().append(true).open(path);
    let is_read_only = opened.is_err_and(|e| e.kind() == std::io::ErrorKind::ReadOnlyFilesystem);
    // What it would have beside lies beside the file itself, whatever links lead there.
    let path = std::fs::canonicalize(path).ok()?;
    let mut left = ["-wal", "-journal"].iter().map(|end| beside(&path, end));
    if !is_read_only || left.any(|path| path.exists()) {
        return None;
    }
    let mut uri = "file://".to_owned();
    for c in path.to_str()?.chars() {
        match c {
            '%' | '?' | '#' => uri.push_str(&format!("%{:02x}", u32::from(c))),
            c => uri.push(c),
        }
    }
    Some(uri + "?immutable=1")
}

fn reader(path: &Path) -> Result<Connection> {
    open(path).map_err(|error| cannot_read(path, &error.into()))
}

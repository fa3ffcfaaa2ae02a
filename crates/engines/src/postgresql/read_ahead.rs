//! What PostgreSQL reads at its start and when a first database is made: the shared catalogs and
//! those of every database but the two that nobody opens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory names, which are object ids, of `template0` and `postgres`; fixed since PostgreSQL 15
/// (`src/include/catalog/pg_database.dat`).
const UNUSED: [&str; 2] = ["4", "5"];

/// The directories to read.
pub(crate) fn dirs(pgdata: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = vec![pgdata.join("global"), pgdata.join("pg_xact")];
    for entry in fs::read_dir(pgdata.join("base"))? {
        let entry = entry?;
        let is_unused = UNUSED.iter().any(|unused| entry.file_name() == *unused);
        if entry.file_type()?.is_dir() && !is_unused {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

//! Short reads of SQLite on the caller's own thread.
//!
//! The driver of the pools runs every statement on a thread of its own. For a read of a hundred
//! microseconds that lies in memory, the way there and back costs as much as the read. These
//! connections can only read, and give up at once where they would have to wait; the caller then
//! asks the pool. See docs/adr/0003-inline-reads.md.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Arg, Columns, direct};
use crate::error::Result;

/// Page cache of one connection; unit: KiB.
const CACHE_KIB: i64 = 1_024;
/// LIMIT: connections kept; callers are the runtime's threads, of which there are about as many as
/// processors.
const IDLE_MAX: usize = 16;

/// Room that is made for rows before they come; unit: rows.
const ROOM_MAX: usize = 32;

/// The row at which a statement stands.
#[derive(Clone, Copy)]
pub(crate) struct Stepped<'r>(&'r rusqlite::Row<'r>);

impl<'r> Stepped<'r> {
    /// The value of a column; `None` where there is none.
    pub(super) fn get(self, index: usize) -> Option<ValueRef<'r>> {
        self.0.get_ref(index).ok()
    }
}

/// Connections that read a SQLite file; opened as they are needed.
#[derive(Debug)]
pub(crate) struct InlineReader {
    path: PathBuf,
    idle: Mutex<Option<Vec<Connection>>>,
}

impl InlineReader {
    /// Readers of a file that has its tables.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(Some(Vec::new())),
        }
    }

    /// What `decode` makes of at most `limit` rows and whether there are more, or its first error.
    /// An error of SQLite is the caller's sign to ask elsewhere.
    pub(super) fn read<T>(
        &self,
        sql: &str,
        args: &[Arg],
        limit: usize,
        decode: fn(Columns<'_>) -> Result<T>,
    ) -> rusqlite::Result<Result<(Vec<T>, bool)>> {
        let connection = self.take()?;
        let found = step(&connection, sql, args, limit, decode)?;
        self.give_back(connection);
        Ok(found)
    }

    /// Closes every connection, for good.
    pub(super) fn close(&self) {
        *self.idle() = None;
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let kept = match self.idle().as_mut() {
            Some(idle) => idle.pop(),
            None => return Err(rusqlite::Error::InvalidQuery),
        };
        kept.map_or_else(|| self.open(), Ok)
    }

    fn give_back(&self, connection: Connection) {
        if let Some(idle) = self.idle().as_mut()
            && idle.len() < IDLE_MAX
        {
            idle.push(connection);
        }
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        // A thread of the runtime does not wait: others have work for it.
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Ok(connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step<T>(
    connection: &Connection,
    sql: &str,
    args: &[Arg],
    limit: usize,
    decode: fn(Columns<'_>) -> Result<T>,
) -> rusqlite::Result<Result<(Vec<T>, bool)>> {
    let mut statement = connection.prepare_cached(sql)?;
    direct::give(&mut statement, args)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::with_capacity(limit.min(ROOM_MAX));
    while let Some(row) = rows.next()? {
        if found.len() == limit {
            return Ok(Ok((found, true)));
        }
        match decode(Columns::Stepped(Stepped(row))) {
            Ok(one) => found.push(one),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok((found, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;
    use crate::sql::{Db, SqliteTuning};

    fn text_of(number: i64) -> String {
        format!("row {number}")
    }

    fn decoded(columns: Columns<'_>) -> Result<String> {
        let text = columns.text(0).flatten().map(str::to_owned);
        text.ok_or(StoreError::NotFound { what: "a text" })
    }

    #[tokio::test]
    async fn it_sees_every_commit_and_cannot_write() {
        let read = "SELECT a FROM t WHERE b = $1";
        let directory = tempfile::tempdir().unwrap();
        let tuning = SqliteTuning {
            is_durable: true,
            readers: 1,
        };
        let path = directory.path().join("db");
        let db = Db::open_sqlite(&path, &tuning).await.unwrap();
        let Db::Sqlite { inline, .. } = &db else {
            unreachable!("it was opened as SQLite")
        };
        let texts = |args: &[Arg]| inline.read(read, args, 2, decoded);
        db.execute("CREATE TABLE t (a TEXT, b BIGINT)", Vec::new())
            .await
            .unwrap();
        for number in 0..20 {
            let args = vec![Arg::Text(Some(text_of(number))), Arg::Int(Some(number))];
            db.execute("INSERT INTO t (a, b) VALUES ($1, $2)", args)
                .await
                .unwrap();
            let found = texts(&[Arg::Int(Some(number))]).unwrap();
            assert_eq!(found.unwrap(), (vec![text_of(number)], false));
        }
        let none = texts(&[Arg::Int(Some(20))]).unwrap();
        assert_eq!(none.unwrap(), (Vec::new(), false));
        let some = inline.read("SELECT a FROM t ORDER BY b", &[], 2, decoded);
        let two = vec![text_of(0), text_of(1)];
        assert_eq!(some.unwrap().unwrap(), (two, true));
        let number = inline.read("SELECT b FROM t", &[], 2, decoded);
        assert!(matches!(
            number,
            Ok(Err(StoreError::NotFound { what: "a text" }))
        ));
        let written = inline.read("DELETE FROM t RETURNING a", &[], 2, decoded);
        assert!(written.unwrap_err().to_string().contains("readonly"));
        inline.close();
        assert!(texts(&[Arg::Int(Some(0))]).is_err());
        let from_pool = db
            .fetch_short(read, vec![Arg::Int(Some(0))], 1, decoded)
            .await;
        assert_eq!(from_pool.unwrap(), (vec![text_of(0)], false));
    }

    #[test]
    fn sqlite_is_built_as_the_reads_need_it() {
        let connection = Connection::open_in_memory().unwrap();
        let mut options = connection.prepare("PRAGMA compile_options").unwrap();
        let options: Vec<String> = options
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        // They come from .cargo/config.toml.
        for is_there in ["ENABLE_QPSG", "DEFAULT_MEMSTATUS=0"] {
            assert!(options.iter().any(|one| one == is_there), "{options:?}");
        }
        assert!(!options.iter().any(|one| one == "ENABLE_MEMORY_MANAGEMENT"));
    }
}

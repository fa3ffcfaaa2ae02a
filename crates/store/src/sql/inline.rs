//! Short reads of SQLite on the caller's own thread.
//!
//! The driver of the pools runs every statement on a thread of its own. For a read of a hundred
//! microseconds that lies in memory, the way there and back costs as much as the read. These
//! connections can only read, and give up at once where they would have to wait; the caller then
//! asks the pool. See docs/adr/0003-inline-reads.md.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Arg;
use super::direct::{self, Values};

/// Page cache of one connection; unit: KiB.
const CACHE_KIB: i64 = 1_024;
/// LIMIT: connections kept; callers are the runtime's threads, of which there are about as many as
/// processors.
const IDLE_MAX: usize = 16;

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

    /// The statement's first row. An error of any kind is the caller's sign to ask elsewhere.
    pub(super) fn first_row(&self, sql: &str, args: &[Arg]) -> rusqlite::Result<Option<Values>> {
        let connection = self.take()?;
        let read = || direct::rows(&mut *connection.prepare_cached(sql)?, args);
        let found = read()?;
        self.give_back(connection);
        Ok(found.into_iter().next())
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

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use crate::sql::{Arg, Db, SqliteTuning};

    fn text_of(number: i64) -> String {
        format!("row {number}")
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
        let text = |args: &[Arg]| inline.first_row(read, args);
        db.execute("CREATE TABLE t (a TEXT, b BIGINT)", Vec::new())
            .await
            .unwrap();
        for number in 0..20 {
            let args = vec![Arg::Text(Some(text_of(number))), Arg::Int(Some(number))];
            db.execute("INSERT INTO t (a, b) VALUES ($1, $2)", args)
                .await
                .unwrap();
            let found = text(&[Arg::Int(Some(number))]).unwrap();
            assert_eq!(found, Some(vec![Value::Text(text_of(number))]));
        }
        assert_eq!(text(&[Arg::Int(Some(20))]).unwrap(), None);
        let written = inline.first_row("DELETE FROM t RETURNING a", &[]);
        assert!(written.unwrap_err().to_string().contains("readonly"));
        inline.close();
        assert!(text(&[Arg::Int(Some(0))]).is_err());
        let from_pool = db.fetch_short(read, vec![Arg::Int(Some(0))]).await;
        assert_eq!(from_pool.unwrap().unwrap().text(0), Some(Some("row 0")));
    }
}

//! The seam between SQLite and PostgreSQL, and with `sql/direct.rs` (SQLite in memory for
//! simulation), `sql/inline.rs` (short reads) and `sql/file.rs` (a file as a whole), the only place
//! that names a driver.
//!
//! Both run the same text with `$n` parameters over columns of four types: TEXT, BIGINT, DOUBLE
//! PRECISION and BYTEA. What differs is here: how a write begins, what a claim locks, how text
//! sorts, which errors mean "try again", and how other processes hear of a commit. On SQLite all
//! writes go through one connection; on PostgreSQL they are SERIALIZABLE and repeated when the
//! database asks for it, so the body of a transaction may run more than once and must not keep
//! anything between runs.

pub(crate) mod direct;
pub mod file;
mod inline;

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use coffer_core::secret::Secret;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Postgres, Row as _, SqlSafeStr, Sqlite,
    Transaction,
};

use self::direct::{Direct, DirectTx, Rewrite};
use self::inline::{InlineReader, Stepped};
use crate::error::{Result, StoreError};

/// LIMIT: how often PostgreSQL may ask to repeat one transaction.
const ATTEMPTS_MAX: u32 = 40;
/// How long a statement waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long SQLite waits for another process that writes the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Channel on which PostgreSQL tells all processes that there is work.
const WORK_CHANNEL: &str = "coffer_work";

/// An answer of the database. Boxed, because a plain `async fn` is compiled by whoever awaits it:
/// each crate and each program of tests above would compile the drivers again.
type Answer<'a, T> = Boxed<'a, Result<T>>;
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An error of the driver; its text is what the database said.
#[derive(Debug)]
pub struct DriverError(Driver);

#[derive(Debug)]
enum Driver {
    Sqlx(sqlx::Error),
    Direct(rusqlite::Error),
}

impl DriverError {
    fn code(&self) -> Option<Cow<'_, str>> {
        match &self.0 {
            Driver::Sqlx(error) => error.as_database_error().and_then(|error| error.code()),
            Driver::Direct(error) => direct::code(error).map(Cow::Owned),
        }
    }

    /// The kind of error that SQLite's code is one of.
    fn sqlite_kind(&self) -> Option<i32> {
        let is_sqlite = match &self.0 {
            Driver::Sqlx(error) => error
                .as_database_error()
                .is_some_and(|error| error.try_downcast_ref::<SqliteError>().is_some()),
            Driver::Direct(_) => true,
        };
        let code: i32 = self.code().filter(|_| is_sqlite)?.parse().ok()?;
        Some(code & 0xff)
    }

    /// What is wrong with the place that the database lies on, or with what lies there.
    fn into_store_error(self) -> StoreError {
        let is_one_of = |codes: &[&str]| self.code().is_some_and(|code| codes.contains(&&*code));
        match self.sqlite_kind() {
            _ if self.is_full() => StoreError::Full(self),
            Some(direct::READ_ONLY) => StoreError::ReadOnly(self),
            Some(direct::IO) => StoreError::Failing(self),
            Some(direct::DAMAGED | direct::NO_DATABASE) => StoreError::Damaged(self),
            None if is_one_of(&["25006"]) => StoreError::ReadOnly(self),
            None if is_one_of(&["58030"]) => StoreError::Failing(self),
            None if is_one_of(&["XX001", "XX002"]) => StoreError::Damaged(self),
            _ => StoreError::Database(self),
        }
    }

    fn is_unique(&self) -> bool {
        match &self.0 {
            Driver::Sqlx(error) => error
                .as_database_error()
                .is_some_and(|error| error.is_unique_violation()),
            Driver::Direct(error) => direct::is_unique(error),
        }
    }

    fn is_foreign_key(&self) -> bool {
        match &self.0 {
            Driver::Sqlx(error) => error
                .as_database_error()
                .is_some_and(|error| error.is_foreign_key_violation()),
            Driver::Direct(error) => direct::is_foreign_key(error),
        }
    }

    /// No space on the disk: SQLite's own word for it, its failure to lengthen the file that its
    /// connections share, and PostgreSQL's word.
    fn is_full(&self) -> bool {
        matches!(self.code().as_deref(), Some("13" | "4874" | "53100"))
    }

    /// Serialization failure or deadlock: PostgreSQL asks to run the transaction again.
    fn is_retryable(&self) -> bool {
        matches!(self.code().as_deref(), Some("40001" | "40P01"))
    }
}

impl std::fmt::Display for DriverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Driver::Sqlx(error) => error.fmt(f),
            Driver::Direct(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DriverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Driver::Sqlx(error) => std::error::Error::source(error),
            Driver::Direct(error) => std::error::Error::source(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        DriverError(Driver::Sqlx(error)).into_store_error()
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        DriverError(Driver::Direct(error)).into_store_error()
    }
}

impl StoreError {
    /// Names what exists already when a unique constraint refused the row.
    pub(crate) fn or_exists(self, what: &'static str) -> Self {
        match self {
            Self::Database(error) if error.is_unique() => Self::AlreadyExists { what },
            other => other,
        }
    }

    /// Names what is in use when a foreign key refused a delete.
    pub(crate) fn or_in_use(self, what: &'static str) -> Self {
        match self {
            Self::Database(error) if error.is_foreign_key() => Self::InUse { what },
            other => other,
        }
    }

    /// Names what is missing when a foreign key refused an insert.
    pub(crate) fn or_missing(self, what: &'static str) -> Self {
        match self {
            Self::Database(error) if error.is_foreign_key() => Self::NotFound { what },
            other => other,
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

/// A statement: one text for both, or one for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

impl Sql {
    /// A statement that cannot be the same on both; say why where it is used.
    pub(crate) const fn differing(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }
}

/// A parameter; each is nullable, because PostgreSQL wants to know the type of a NULL.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    /// TEXT.
    Text(Option<String>),
    /// BIGINT.
    Int(Option<i64>),
    /// BYTEA.
    Blob(Option<Vec<u8>>),
}

macro_rules! bound {
    ($query:expr, $args:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Text(value) => query.bind(value),
                Arg::Int(value) => query.bind(value),
                Arg::Blob(value) => query.bind(value),
            };
        }
        query
    }};
}

fn sqlite_query(sql: Sql, args: Vec<Arg>) -> Query<'static, Sqlite, SqliteArguments> {
    bound!(sqlx::query(sql.sqlite), args)
}

fn postgres_query(sql: Sql, args: Vec<Arg>) -> Query<'static, Postgres, PgArguments> {
    bound!(sqlx::query(sql.postgres), args)
}

/// A row of either database, read by position.
pub(crate) enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
    /// Of PostgreSQL.
    Postgres(PgRow),
    /// Of SQLite in memory.
    Direct(Vec<rusqlite::types::Value>),
}

/// The columns of a row, wherever they are.
#[derive(Clone, Copy)]
pub(crate) enum Columns<'r> {
    /// Of a row that was taken from its driver.
    Row(&'r Row),
    /// Of the row at which a statement of SQLite stands.
    Stepped(Stepped<'r>),
}

impl<'r> From<&'r Row> for Columns<'r> {
    fn from(row: &'r Row) -> Self {
        Self::Row(row)
    }
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $type:ty) => {
        $(#[$doc])*
        pub(crate) fn $name(&self, index: usize) -> Option<$type> {
            match self {
                Self::Row(Row::Sqlite(row)) => row.try_get(index).ok(),
                Self::Row(Row::Postgres(row)) => row.try_get(index).ok(),
                Self::Row(Row::Direct(row)) => direct::$name(row.get(index)?.into()),
                Self::Stepped(row) => direct::$name(row.get(index)?),
            }
        }
    };
}

impl<'r> Columns<'r> {
    getter!(
        /// A text; the outer `None` means that the column holds something else.
        text, Option<&'r str>
    );
    getter!(
        /// An integer.
        int, Option<i64>
    );
    getter!(
        /// Bytes.
        blob, Option<&'r [u8]>
    );
}

/// The database.
pub(crate) enum Db {
    /// SQLite: one connection writes, the others read.
    Sqlite {
        /// Connections that cannot write.
        read: SqlitePool,
        /// The connection that writes.
        write: SqlitePool,
        /// Short reads without the pool.
        inline: InlineReader,
    },
    /// PostgreSQL.
    Postgres {
        /// All connections.
        pool: PgPool,
        /// For the connection that listens.
        options: Box<PgConnectOptions>,
    },
    /// SQLite in memory.
    Direct(Direct),
}

/// How a SQLite file is opened.
pub(crate) struct SqliteTuning {
    /// Whether a commit is synced.
    pub(crate) is_durable: bool,
    /// Connections that read.
    pub(crate) readers: u32,
}

impl std::fmt::Debug for Db {
    /// Without the options of the connections, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite { .. } => "Sqlite",
            Self::Postgres { .. } => "Postgres",
            Self::Direct(_) => "Direct",
        })
    }
}

fn sqlite_pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

impl Db {
    /// Opens a SQLite file, made when absent.
    pub(crate) fn open_sqlite<'a>(path: &'a Path, tuning: &'a SqliteTuning) -> Answer<'a, Self> {
        Box::pin(Self::connect_sqlite(path, tuning))
    }

    async fn connect_sqlite(path: &Path, tuning: &SqliteTuning) -> Result<Self> {
        let synchronous = if tuning.is_durable {
            SqliteSynchronous::Full
        } else {
            SqliteSynchronous::Off
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let write = sqlite_pool(1).after_release(|connection, _| {
            Box::pin(async move {
                // A drop rolls back here. SQLite ends a transaction on its own when the disk is
                // full; the driver would count it as open for ever, and refuse the next.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        });
        let write = write.connect_with(options.clone()).await?;
        let readers = options.create_if_missing(false).pragma("query_only", "ON");
        let read = sqlite_pool(tuning.readers).connect_lazy_with(readers);
        let inline = InlineReader::new(path);
        Ok(Self::Sqlite {
            read,
            write,
            inline,
        })
    }

    /// Opens SQLite in memory, migrated, with statements weakened by `rewrites`.
    pub(crate) fn open_memory(rewrites: Vec<Rewrite>) -> Result<Self> {
        Ok(Self::Direct(Direct::open(rewrites)?))
    }

    /// Opens a PostgreSQL database.
    pub(crate) fn open_postgres(url: &Secret, connections: u32) -> Answer<'_, Self> {
        Box::pin(Self::connect_postgres(url, connections))
    }

    async fn connect_postgres(url: &Secret, connections: u32) -> Result<Self> {
        // The driver's own message may repeat the URL, which may hold a password.
        let options = PgConnectOptions::from_str(url.expose()).map_err(|_| StoreError::Open {
            problem: "the PostgreSQL url of the store cannot be read: expected \
                      postgres://USER:PASSWORD@HOST:PORT/DATABASE"
                .to_owned(),
        })?;
        let options = options
            .application_name("coffer")
            // Of statements outside a transaction; a server may have another default.
            .options([("default_transaction_isolation", "read committed")])
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.clone())
            .await?;
        Ok(Self::Postgres {
            pool,
            options: Box::new(options),
        })
    }

    /// Runs the migrations that the database lacks: (version, title, statements) each.
    pub(crate) fn migrate<'a>(
        &'a self,
        list: &'a [(i64, &'static str, &'static str)],
        table: &'static str,
    ) -> Answer<'a, ()> {
        Box::pin(self.run_migrations(list, table))
    }

    async fn run_migrations(
        &self,
        list: &[(i64, &'static str, &'static str)],
        table: &'static str,
    ) -> Result<()> {
        let migrations = list.iter().map(|&(version, title, text)| {
            let text = match self {
                Self::Sqlite { .. } | Self::Direct(_) => text.to_owned(),
                // SQLite sorts text by bytes; PostgreSQL does so only when told.
                Self::Postgres { .. } => text.replace(" TEXT", " TEXT COLLATE \"C\""),
            };
            let sql = AssertSqlSafe(text).into_sql_str();
            Migration::new(version, title.into(), MigrationType::Simple, sql, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.dangerous_set_table_name(table);
        match self {
            Self::Sqlite { write, .. } => migrator.run(write).await,
            Self::Postgres { pool, .. } => migrator.run(pool).await,
            // It is a copy of a template that went through them.
            Self::Direct(_) => Ok(()),
        }
        .map_err(|error| match error {
            MigrateError::VersionMissing(newer) => StoreError::OtherSchema {
                problem: format!(
                    "the store has schema {newer}, which this Coffer does not know: a newer one \
                     upgraded it. Run that one, or put the store back that its upgrade kept"
                ),
            },
            other => StoreError::from(sqlx::Error::from(other)),
        })
    }

    /// Rows of a statement that only reads.
    pub(crate) fn fetch_all(&self, sql: impl Into<Sql>, args: Vec<Arg>) -> Answer<'_, Vec<Row>> {
        self.rows(sql.into(), args)
    }

    fn rows(&self, sql: Sql, args: Vec<Arg>) -> Answer<'_, Vec<Row>> {
        Box::pin(async move {
            match self {
                Self::Sqlite { read, .. } => {
                    let rows = sqlite_query(sql, args).fetch_all(read).await?;
                    Ok(rows.into_iter().map(Row::Sqlite).collect())
                }
                Self::Postgres { pool, .. } => {
                    let rows = postgres_query(sql, args).fetch_all(pool).await?;
                    Ok(rows.into_iter().map(Row::Postgres).collect())
                }
                Self::Direct(db) => Ok(direct_rows(db.run(sql.sqlite, &args).await?)),
            }
        })
    }

    /// The only row of a statement that only reads.
    pub(crate) fn fetch_optional(
        &self,
        sql: impl Into<Sql>,
        args: Vec<Arg>,
    ) -> Answer<'_, Option<Row>> {
        self.row(sql.into(), args)
    }

    fn row(&self, sql: Sql, args: Vec<Arg>) -> Answer<'_, Option<Row>> {
        Box::pin(async move {
            match self {
                Self::Sqlite { read, .. } => {
                    let row = sqlite_query(sql, args).fetch_optional(read).await?;
                    Ok(row.map(Row::Sqlite))
                }
                Self::Postgres { pool, .. } => {
                    let row = postgres_query(sql, args).fetch_optional(pool).await?;
                    Ok(row.map(Row::Postgres))
                }
                Self::Direct(_) => Ok(self.rows(sql, args).await?.into_iter().next()),
            }
        })
    }

    /// What `decode` makes of at most `limit` rows of a statement that only reads, and whether it
    /// has more; for reads so short and frequent that the way to another thread, and to copy every
    /// value, would cost more than they do.
    pub(crate) async fn fetch_short<T>(
        &self,
        sql: impl Into<Sql>,
        args: Vec<Arg>,
        limit: usize,
        decode: fn(Columns<'_>) -> Result<T>,
    ) -> Result<(Vec<T>, bool)> {
        let sql = sql.into();
        if let Self::Sqlite { inline, .. } = self
            && let Ok(found) = inline.read(sql.sqlite, &args, limit, decode)
        {
            return found;
        }
        // Whatever was in the way there, the pool waits for it or says what it is.
        let rows = self.fetch_all(sql, args).await?;
        let found: Result<Vec<T>> = rows.iter().take(limit).map(|r| decode(r.into())).collect();
        Ok((found?, rows.len() > limit))
    }

    /// Runs one statement that writes, as a transaction of its own; gives the rows it changed.
    pub(crate) fn execute(&self, sql: impl Into<Sql>, args: Vec<Arg>) -> Answer<'_, u64> {
        self.change(sql.into(), args)
    }

    fn change(&self, sql: Sql, args: Vec<Arg>) -> Answer<'_, u64> {
        Box::pin(async move {
            match self {
                Self::Sqlite { write, .. } => {
                    let done = sqlite_query(sql, args).execute(write).await?;
                    Ok(done.rows_affected())
                }
                Self::Postgres { .. } => self.execute_again(sql, &args).await,
                Self::Direct(db) => Ok(db.run(sql.sqlite, &args).await?.1),
            }
        })
    }

    /// Runs one statement as a SERIALIZABLE transaction, until PostgreSQL takes it.
    async fn execute_again(&self, sql: Sql, args: &[Arg]) -> Result<u64> {
        let mut attempt = 0;
        loop {
            let mut tx = self.begin().await?;
            let result = tx.execute(sql, args.to_vec()).await;
            if let ControlFlow::Break((result, _)) = tx.finish(result, &mut attempt).await {
                return result;
            }
        }
    }

    /// Runs one statement that writes and gives rows, on PostgreSQL at READ COMMITTED: for claims,
    /// which pass over rows that others hold, and for compare-and-sets of one row.
    pub(crate) fn execute_returning(
        &self,
        sql: impl Into<Sql>,
        args: Vec<Arg>,
    ) -> Answer<'_, Vec<Row>> {
        self.change_rows(sql.into(), args)
    }

    fn change_rows(&self, sql: Sql, args: Vec<Arg>) -> Answer<'_, Vec<Row>> {
        match self {
            Self::Sqlite { write, .. } => Box::pin(async move {
                let rows = sqlite_query(sql, args).fetch_all(write).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }),
            Self::Postgres { .. } | Self::Direct(_) => self.rows(sql, args),
        }
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(&self) -> Answer<'_, Tx> {
        Box::pin(self.begin_to_write())
    }

    async fn begin_to_write(&self) -> Result<Tx> {
        let connection = match self {
            Self::Sqlite { write, .. } => {
                Connection::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?)
            }
            Self::Postgres { pool, .. } => {
                let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE";
                Connection::Postgres(pool.begin_with(begin).await?)
            }
            Self::Direct(db) => Connection::Direct(db.begin("BEGIN IMMEDIATE").await?),
        };
        Ok(Tx {
            connection,
            makes_work: false,
        })
    }

    /// Begins a transaction that only reads, all of it as of one moment.
    pub(crate) fn begin_read(&self) -> Answer<'_, Tx> {
        Box::pin(self.begin_to_read())
    }

    async fn begin_to_read(&self) -> Result<Tx> {
        let connection = match self {
            Self::Sqlite { read, .. } => Connection::Sqlite(read.begin().await?),
            Self::Postgres { pool, .. } => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Connection::Postgres(pool.begin_with(begin).await?)
            }
            Self::Direct(db) => Connection::Direct(db.begin("BEGIN").await?),
        };
        Ok(Tx {
            connection,
            makes_work: false,
        })
    }

    /// Tells other processes that there is work.
    pub(crate) fn notify(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Self::Postgres { pool, .. } = self {
                let notify = sqlx::query("SELECT pg_notify($1, '')").bind(WORK_CHANNEL);
                notify.execute(pool).await?;
            }
            Ok(())
        })
    }

    /// A connection that hears what other processes commit; none where there are none.
    pub(crate) fn listen(&self) -> Answer<'_, Option<Listener>> {
        Box::pin(self.begin_to_listen())
    }

    async fn begin_to_listen(&self) -> Result<Option<Listener>> {
        let Self::Postgres { options, .. } = self else {
            return Ok(None);
        };
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(options.as_ref().clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(WORK_CHANNEL).await?;
        Ok(Some(Listener(listener)))
    }

    /// Closes every connection.
    pub(crate) fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async move {
            match self {
                Self::Sqlite {
                    read,
                    write,
                    inline,
                } => {
                    inline.close();
                    read.close().await;
                    write.close().await;
                }
                Self::Postgres { pool, .. } => pool.close().await,
                Self::Direct(_) => {}
            }
        })
    }
}

fn direct_rows((rows, _): (Vec<Vec<rusqlite::types::Value>>, u64)) -> Vec<Row> {
    rows.into_iter().map(Row::Direct).collect()
}

/// A connection that hears notifications.
#[derive(Debug)]
pub(crate) struct Listener(PgListener);

impl Listener {
    /// Waits for a notification, or for the connection to be made again after it was lost.
    pub(crate) fn wait(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.0.try_recv().await?;
            Ok(())
        })
    }
}

#[derive(Debug)]
enum Connection {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
    Direct(DirectTx),
}

/// A transaction that writes; rolled back when dropped.
#[derive(Debug)]
pub(crate) struct Tx {
    connection: Connection,
    makes_work: bool,
}

impl Tx {
    /// The commit of this transaction wakes workers.
    pub(crate) fn wake(&mut self) {
        self.makes_work = true;
    }

    /// Runs a statement; gives the rows it changed.
    pub(crate) fn execute(&mut self, sql: impl Into<Sql>, args: Vec<Arg>) -> Answer<'_, u64> {
        self.change(sql.into(), args)
    }

    fn change(&mut self, sql: Sql, args: Vec<Arg>) -> Answer<'_, u64> {
        Box::pin(async move {
            match &mut self.connection {
                Connection::Sqlite(tx) => {
                    let done = sqlite_query(sql, args).execute(&mut **tx).await?;
                    Ok(done.rows_affected())
                }
                Connection::Postgres(tx) => {
                    let done = postgres_query(sql, args).execute(&mut **tx).await?;
                    Ok(done.rows_affected())
                }
                Connection::Direct(tx) => Ok(tx.run(sql.sqlite, &args)?.1),
            }
        })
    }

    /// Rows of a statement, which may write.
    pub(crate) fn fetch_all(
        &mut self,
        sql: impl Into<Sql>,
        args: Vec<Arg>,
    ) -> Answer<'_, Vec<Row>> {
        self.rows(sql.into(), args)
    }

    fn rows(&mut self, sql: Sql, args: Vec<Arg>) -> Answer<'_, Vec<Row>> {
        Box::pin(async move {
            match &mut self.connection {
                Connection::Sqlite(tx) => {
                    let rows = sqlite_query(sql, args).fetch_all(&mut **tx).await?;
                    Ok(rows.into_iter().map(Row::Sqlite).collect())
                }
                Connection::Postgres(tx) => {
                    let rows = postgres_query(sql, args).fetch_all(&mut **tx).await?;
                    Ok(rows.into_iter().map(Row::Postgres).collect())
                }
                Connection::Direct(tx) => Ok(direct_rows(tx.run(sql.sqlite, &args)?)),
            }
        })
    }

    /// The only row of a statement, which may write.
    pub(crate) async fn fetch_optional(
        &mut self,
        sql: impl Into<Sql>,
        args: Vec<Arg>,
    ) -> Result<Option<Row>> {
        // All rows are read: a statement that writes and is left half-read is undone on SQLite.
        Ok(self.fetch_all(sql, args).await?.into_iter().next())
    }

    /// Commits if `result` is good, rolls back otherwise. Continues when PostgreSQL asks to run
    /// the transaction again; breaks with the result and whether it made work.
    pub(crate) async fn finish<T>(
        self,
        result: Result<T>,
        attempt: &mut u32,
    ) -> ControlFlow<(Result<T>, bool)> {
        let makes_work = self.makes_work;
        let error = match result {
            Ok(value) => match self.commit().await {
                Ok(()) => return ControlFlow::Break((Ok(value), makes_work)),
                Err(error) => error,
            },
            Err(error) => match self.roll_back().await {
                Ok(()) => error,
                // The first error says more than that the connection is gone as well.
                Err(_) => error,
            },
        };
        *attempt += 1;
        if !error.is_retryable() || *attempt >= ATTEMPTS_MAX {
            return ControlFlow::Break((Err(error), false));
        }
        tokio::time::sleep(backoff(*attempt)).await;
        ControlFlow::Continue(())
    }

    fn commit(self) -> Answer<'static, ()> {
        Box::pin(async move {
            match self.connection {
                Connection::Sqlite(tx) => tx.commit().await?,
                Connection::Postgres(mut tx) => {
                    if self.makes_work {
                        let notify = sqlx::query("SELECT pg_notify($1, '')").bind(WORK_CHANNEL);
                        notify.execute(&mut *tx).await?;
                    }
                    tx.commit().await?;
                }
                Connection::Direct(tx) => tx.commit()?,
            }
            Ok(())
        })
    }

    /// Ends the transaction without writing anything.
    pub(crate) fn roll_back(self) -> Answer<'static, ()> {
        Box::pin(async move {
            match self.connection {
                Connection::Sqlite(tx) => tx.rollback().await?,
                Connection::Postgres(tx) => tx.rollback().await?,
                // Dropped, it rolls back.
                Connection::Direct(tx) => drop(tx),
            }
            Ok(())
        })
    }
}

/// 1 to 64 ms, longer and wider with every attempt, so that the losers do not meet again.
fn backoff(attempt: u32) -> Duration {
    let spread = 1_u64 << attempt.min(6);
    Duration::from_millis(1 + RandomState::new().hash_one(attempt) % spread)
}

/// Runs a block as one transaction that writes, again if PostgreSQL asks for it. In the block
/// `?` ends the transaction: nothing of it is written then.
macro_rules! transact {
    ($store:expr, $tx:ident => $body:expr) => {{
        let mut attempt = 0;
        loop {
            // Boxed, or every caller's future would hold the states of the whole transaction.
            let once = Box::pin(async {
                let mut $tx = $store.db().begin().await?;
                let result: $crate::error::Result<_> = async { $body }.await;
                $crate::error::Result::Ok($tx.finish(result, &mut attempt).await)
            });
            match once.await? {
                ::std::ops::ControlFlow::Continue(()) => {}
                ::std::ops::ControlFlow::Break((result, makes_work)) => {
                    if makes_work {
                        $store.announce();
                    }
                    break result;
                }
            }
        }
    }};
}
pub(crate) use transact;

#[cfg(test)]
mod tests {
    use super::*;

    async fn pragma(pool: &SqlitePool, sql: &'static str) -> String {
        let row = sqlx::query(sql).fetch_one(pool).await.unwrap();
        row.try_get::<String, _>(0)
            .or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string()))
            .unwrap()
    }

    #[tokio::test]
    async fn sqlite_syncs_every_commit_and_readers_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let tuning = SqliteTuning {
            is_durable: true,
            readers: 4,
        };
        let db = Db::open_sqlite(&directory.path().join("db"), &tuning)
            .await
            .unwrap();
        let Db::Sqlite { read, write, .. } = &db else {
            unreachable!("it was opened as SQLite")
        };
        assert_eq!(pragma(write, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(write, "PRAGMA synchronous").await, "2", "FULL");
        assert_eq!(pragma(write, "PRAGMA foreign_keys").await, "1");
        assert_eq!(pragma(write, "PRAGMA busy_timeout").await, "10000");
        assert_eq!(write.options().get_max_connections(), 1);
        db.execute("CREATE TABLE t (a BIGINT)", Vec::new())
            .await
            .unwrap();
        let refused = sqlx::query("INSERT INTO t (a) VALUES (1)")
            .execute(read)
            .await;
        assert!(refused.unwrap_err().to_string().contains("readonly"));
        assert!(
            db.fetch_all("SELECT a FROM t", Vec::new())
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_or_fails_writes_nothing() {
        let db = Db::open_memory(Vec::new()).unwrap();
        db.execute("CREATE TABLE t (a BIGINT)", Vec::new())
            .await
            .unwrap();
        let insert = "INSERT INTO t (a) VALUES (1)";
        let mut tx = db.begin().await.unwrap();
        tx.execute(insert, Vec::new()).await.unwrap();
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        tx.execute(insert, Vec::new()).await.unwrap();
        let failed: Result<()> = Err(StoreError::NotFound { what: "row" });
        let ended = tx.finish(failed, &mut 0).await;
        assert!(matches!(
            ended,
            ControlFlow::Break((Err(StoreError::NotFound { .. }), false))
        ));
        assert!(
            db.fetch_all("SELECT a FROM t", Vec::new())
                .await
                .unwrap()
                .is_empty()
        );
    }
}

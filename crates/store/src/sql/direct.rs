//! SQLite in memory, called on the thread that asks: for simulation and tests.
//!
//! It runs the statements of the seam as they are, without the driver's thread between, which
//! costs more than most statements do. A new database is a copy of a template that went through
//! the migrations once in this process; the connection of one that is gone is emptied and used
//! again with its prepared statements. Statements can be weakened by text, so that a simulation
//! shows that it notices; nothing that is shipped asks for that.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::backup::Backup;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Statement, ToSql, ffi};
use tokio::sync::OwnedMutexGuard;

use super::Arg;
use crate::error::Result;
use crate::migrate::MIGRATIONS;

/// LIMIT: prepared statements kept; the store has fewer.
const STATEMENTS_KEPT: usize = 512;
/// LIMIT: connections of databases that are gone, kept by each thread.
const CONNECTIONS_KEPT: usize = 2;

thread_local! {
    static KEPT: RefCell<Vec<Connection>> = const { RefCell::new(Vec::new()) };
}

/// What the columns of a row hold.
pub(crate) type Values = Vec<Value>;

/// A change of the text of statements, which breaks a promise of theirs on purpose.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Text to look for.
    pub from: &'static str,
    /// What stands there instead.
    pub to: &'static str,
    /// How many statements had it.
    pub hits: Arc<AtomicU64>,
}

impl Rewrite {
    /// Replaces `from` by `to` in every statement that has it.
    pub fn new(from: &'static str, to: &'static str) -> Self {
        Self {
            from,
            to,
            hits: Arc::default(),
        }
    }
}

/// The one connection, and how statements are weakened.
#[derive(Debug)]
struct Inner {
    connection: Kept,
    rewrites: Vec<Rewrite>,
    rewritten: HashMap<&'static str, String>,
}

/// A connection that its thread keeps when its database is gone.
#[derive(Debug)]
struct Kept(Option<Connection>);

impl Deref for Kept {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect("it is taken out only by its end")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(connection) = self.0.take().filter(|one| one.is_autocommit()) else {
            return;
        };
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < CONNECTIONS_KEPT {
                kept.push(connection);
            }
        });
    }
}

/// A database in memory.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    inner: Arc<tokio::sync::Mutex<Inner>>,
}

/// An open transaction; rolled back when dropped.
#[derive(Debug)]
pub(crate) struct DirectTx {
    inner: OwnedMutexGuard<Inner>,
}

/// Whether a unique constraint refused the row.
pub(super) fn is_unique(error: &rusqlite::Error) -> bool {
    let code = extended(error);
    code == Some(ffi::SQLITE_CONSTRAINT_UNIQUE) || code == Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
}

/// Whether a foreign key refused the change.
pub(super) fn is_foreign_key(error: &rusqlite::Error) -> bool {
    extended(error) == Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
}

/// Kinds of errors, of which the other codes are refinements.
pub(super) const READ_ONLY: i32 = ffi::SQLITE_READONLY;
pub(super) const IO: i32 = ffi::SQLITE_IOERR;
pub(super) const DAMAGED: i32 = ffi::SQLITE_CORRUPT;
pub(super) const NO_DATABASE: i32 = ffi::SQLITE_NOTADB;

/// SQLite's code of an error, as the other driver writes it.
pub(super) fn code(error: &rusqlite::Error) -> Option<String> {
    extended(error).map(|code| code.to_string())
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    Some(error.sqlite_error()?.extended_code)
}

/// A text; the outer `None` means that the column holds something else.
pub(super) fn text(value: ValueRef<'_>) -> Option<Option<&str>> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Some),
        ValueRef::Null => Some(None),
        _ => None,
    }
}

/// An integer, as `text`.
pub(super) fn int(value: ValueRef<'_>) -> Option<Option<i64>> {
    match value {
        ValueRef::Integer(number) => Some(Some(number)),
        ValueRef::Null => Some(None),
        _ => None,
    }
}

/// Bytes, as `text`.
pub(super) fn blob(value: ValueRef<'_>) -> Option<Option<&[u8]>> {
    match value {
        ValueRef::Blob(bytes) => Some(Some(bytes)),
        ValueRef::Null => Some(None),
        _ => None,
    }
}

/// What went through the migrations.
struct Template {
    connection: Mutex<Connection>,
    /// What empties a copy again; `None` when migrations write rows, which a copy has to keep.
    emptying: Option<String>,
}

/// The template of this process.
fn template() -> rusqlite::Result<&'static Template> {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    if let Some(made) = TEMPLATE.get() {
        return Ok(made);
    }
    let connection = Connection::open_in_memory()?;
    for (_, _, statements) in MIGRATIONS {
        connection.execute_batch(statements)?;
    }
    let emptying = emptying(&connection)?;
    Ok(TEMPLATE.get_or_init(|| Template {
        connection: Mutex::new(connection),
        emptying,
    }))
}

fn emptying(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let mut tables = connection.prepare(tables)?;
    let names = tables.query_map([], |row| row.get::<_, String>(0))?;
    let mut text = "PRAGMA foreign_keys = OFF; BEGIN;".to_owned();
    for name in names {
        let name = name?;
        let rows = format!("SELECT EXISTS (SELECT 1 FROM {name})");
        if connection.query_row(&rows, [], |row| row.get::<_, bool>(0))? {
            return Ok(None);
        }
        text.push_str(&format!(" DELETE FROM {name};"));
    }
    text.push_str(" COMMIT; PRAGMA foreign_keys = ON;");
    Ok(Some(text))
}

/// A migrated connection without rows.
fn connection() -> Result<Connection> {
    let template = template()?;
    let kept = KEPT.with(|kept| kept.borrow_mut().pop());
    if let (Some(connection), Some(emptying)) = (kept, &template.emptying) {
        connection.execute_batch(emptying)?;
        return Ok(connection);
    }
    let mut connection = Connection::open_in_memory()?;
    let source = template.connection.lock();
    Backup::new(
        &source.unwrap_or_else(PoisonError::into_inner),
        &mut connection,
    )?
    .step(-1)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

fn bind(arg: &Arg) -> ToSqlOutput<'_> {
    match arg {
        Arg::Text(Some(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Arg::Int(Some(number)) => ToSqlOutput::Owned(Value::Integer(*number)),
        Arg::Blob(Some(bytes)) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        Arg::Text(None) | Arg::Int(None) | Arg::Blob(None) => ToSqlOutput::Owned(Value::Null),
    }
}

struct Bound<'a>(&'a Arg);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(bind(self.0))
    }
}

/// Gives a prepared statement its arguments.
pub(super) fn give(statement: &mut Statement<'_>, args: &[Arg]) -> rusqlite::Result<()> {
    // `$7` is the name of a parameter to SQLite, and an argument's number to us.
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).unwrap_or_default();
        let number = name.trim_start_matches('$').parse().unwrap_or(index);
        let missing = || rusqlite::Error::InvalidParameterName(name.to_owned());
        let arg = args.get(number.wrapping_sub(1)).ok_or_else(missing)?;
        statement.raw_bind_parameter(index, Bound(arg))?;
    }
    Ok(())
}

/// Runs a prepared statement to its end and gives its rows.
fn rows(statement: &mut Statement<'_>, args: &[Arg]) -> rusqlite::Result<Vec<Values>> {
    give(statement, args)?;
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| row.get(column));
        found.push(values.collect::<rusqlite::Result<Values>>()?);
    }
    Ok(found)
}

impl Inner {
    /// Notes how the statement is run here, if it is weakened.
    fn rewrite(&mut self, sql: &'static str) {
        if self.rewrites.is_empty() || self.rewritten.contains_key(sql) {
            return;
        }
        let mut text = sql.to_owned();
        for one in self.rewrites.iter().filter(|one| sql.contains(one.from)) {
            one.hits.fetch_add(1, Ordering::Relaxed);
            text = text.replace(one.from, one.to);
        }
        self.rewritten.insert(sql, text);
    }

    /// Runs a statement to its end; gives its rows and how many it changed.
    fn run(&mut self, sql: &'static str, args: &[Arg]) -> Result<(Vec<Values>, u64)> {
        self.rewrite(sql);
        let text = self.rewritten.get(sql).map_or(sql, String::as_str);
        let mut statement = self.connection.prepare_cached(text)?;
        let found = rows(&mut statement, args)?;
        drop(statement);
        Ok((found, self.connection.changes()))
    }
}

impl Direct {
    /// A copy of the template.
    pub(crate) fn open(rewrites: Vec<Rewrite>) -> Result<Self> {
        let inner = Inner {
            connection: Kept(Some(connection()?)),
            rewrites,
            rewritten: HashMap::new(),
        };
        Ok(Self {
            inner: Arc::new(tokio::sync::Mutex::new(inner)),
        })
    }

    /// Runs one statement by itself.
    pub(crate) async fn run(&self, sql: &'static str, args: &[Arg]) -> Result<(Vec<Values>, u64)> {
        self.inner.lock().await.run(sql, args)
    }

    /// Begins a transaction; everyone else waits for its end.
    pub(crate) async fn begin(&self, begin: &'static str) -> Result<DirectTx> {
        let mut inner = Arc::clone(&self.inner).lock_owned().await;
        inner.run(begin, &[])?;
        Ok(DirectTx { inner })
    }
}

impl DirectTx {
    /// Runs one statement.
    pub(crate) fn run(&mut self, sql: &'static str, args: &[Arg]) -> Result<(Vec<Values>, u64)> {
        self.inner.run(sql, args)
    }

    /// Makes what was written stay.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.inner.run("COMMIT", &[]).map(drop)
    }
}

impl Drop for DirectTx {
    fn drop(&mut self) {
        if !self.inner.connection.is_autocommit() {
            // A database in memory that cannot roll back is gone with its test.
            let _ = self.inner.run("ROLLBACK", &[]);
        }
    }
}

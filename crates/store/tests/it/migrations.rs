//! Each migration on a store that is filled with rows of the version before: every row is there
//! afterwards, with everything that was in it.
//!
//! The rows are made from what SQLite tells of its tables, so that a table or column to come is
//! filled as well. What they hold is nothing that Coffer could read: migrations are SQL. One that
//! changes what a column holds says so here, in `changed`.

use coffer_core::time::Timestamp;
use coffer_store::{Durability, Store, StoreOptions, StoreUrl, file};
use rusqlite::Connection;

use crate::postgres;

/// Rows in each table: one with everything, one without all that may be missing.
const ROWS: i64 = 2;

/// A column, as SQLite tells of it.
struct Column {
    name: String,
    kind: String,
    is_required: bool,
    /// Table and column that it refers to.
    refers: Option<(String, String)>,
}

struct Table {
    name: String,
    columns: Vec<Column>,
}

/// What stands in a column of a row.
enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(i64),
}

/// A row: its table, and each column with what stands in it.
struct Row {
    table: String,
    values: Vec<(String, Value)>,
}

/// How a database writes bytes down.
type Bytes = fn(i64) -> String;

fn sqlite_bytes(byte: i64) -> String {
    format!("x'{byte:02x}'")
}

fn postgres_bytes(byte: i64) -> String {
    format!("'\\x{byte:02x}'::bytea")
}

impl Value {
    fn literal(&self, bytes: Bytes) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Text(text) => format!("'{text}'"),
            Self::Blob(byte) => bytes(*byte),
        }
    }
}

impl Row {
    fn insert(&self, bytes: Bytes) -> String {
        let names: Vec<_> = self.values.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<_> = self.values.iter().map(|(_, v)| v.literal(bytes)).collect();
        let (table, names, values) = (&self.table, names.join(", "), values.join(", "));
        format!("INSERT INTO {table} ({names}) VALUES ({values})")
    }

    /// Counts the rows that are just so.
    fn count(&self, bytes: Bytes) -> String {
        let same = |(name, value): &(String, Value)| match value {
            Value::Null => format!("{name} IS NULL"),
            value => format!("{name} = {}", value.literal(bytes)),
        };
        let kept = self
            .values
            .iter()
            .filter(|(name, _)| !changed(&self.table, name));
        let all: Vec<_> = kept.map(same).collect();
        format!(
            "SELECT COUNT(*) FROM {} WHERE {}",
            self.table,
            all.join(" AND ")
        )
    }
}

/// Whether a migration takes a column away, or changes what it holds on purpose.
fn changed(_table: &str, _column: &str) -> bool {
    false
}

fn tables(db: &Connection) -> Vec<Table> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
        AND name <> 'schema_version' ORDER BY name";
    let mut statement = db.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).collect();
    let table = |name: String| Table {
        columns: columns(db, &name),
        name,
    };
    names.into_iter().map(table).collect()
}

fn columns(db: &Connection, table: &str) -> Vec<Column> {
    let sql = "SELECT c.name, c.type, c.\"notnull\", f.\"table\", f.\"to\"
        FROM pragma_table_info($1) AS c
        LEFT JOIN pragma_foreign_key_list($1) AS f ON f.\"from\" = c.name ORDER BY c.cid";
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.query_map([table], |row| {
        let refers: (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
        Ok(Column {
            name: row.get(0)?,
            kind: row.get(1)?,
            is_required: row.get(2)?,
            refers: refers.0.zip(refers.1),
        })
    });
    columns.unwrap().map(Result::unwrap).collect()
}

/// What stands in a column of the row with this number. One that refers to another holds what
/// stands there in the row with the same number.
fn value(all: &[Table], table: &str, column: &str, row: i64) -> Value {
    let found = all.iter().find(|one| one.name == table).unwrap();
    let found = found.columns.iter().find(|one| one.name == column).unwrap();
    if row > 1 && !found.is_required {
        return Value::Null;
    }
    match (&found.refers, found.kind.as_str()) {
        (Some((other, of)), _) => value(all, other, of, row),
        (None, "BIGINT") => Value::Int(row),
        (None, "TEXT") => Value::Text(format!("{table}.{column}.{row}")),
        (None, "BYTEA") => Value::Blob(row),
        (None, kind) => panic!("{table}.{column} is {kind}: say here what a row holds in it"),
    }
}

/// Rows for every table, after those that they refer to.
fn rows(db: &Connection) -> Vec<Row> {
    let all = tables(db);
    let mut ordered: Vec<&Table> = Vec::new();
    while ordered.len() < all.len() {
        let is_in = |name: &str| ordered.iter().any(|one| one.name == name);
        let is_ready = |table: &&Table| {
            let refers = table.columns.iter().filter_map(|one| one.refers.as_ref());
            let mut others = refers.map(|(other, _)| other.as_str());
            !is_in(&table.name) && others.all(|other| other == table.name || is_in(other))
        };
        let next = all
            .iter()
            .find(is_ready)
            .expect("no two tables need each other");
        ordered.push(next);
    }
    let mut rows = Vec::new();
    for table in ordered {
        for number in 1..=ROWS {
            let columns = table.columns.iter();
            let held = |one: &Column| {
                (
                    one.name.clone(),
                    value(&all, &table.name, &one.name, number),
                )
            };
            rows.push(Row {
                table: table.name.clone(),
                values: columns.map(held).collect(),
            });
        }
    }
    rows
}

fn options() -> StoreOptions {
    StoreOptions {
        durability: Durability::Off,
        connections: 2,
        ..StoreOptions::default()
    }
}

/// Brings a store to a schema, as the build would whose newest it was.
async fn bring(url: &StoreUrl, schema: i64) {
    let store = Store::open_at(url, options(), schema).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), schema);
    store.close().await;
}

fn open(path: &std::path::Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "foreign_keys", true).unwrap();
    db
}

#[tokio::test]
async fn each_migration_keeps_the_rows_of_the_version_before_on_sqlite() {
    for schema in 1..file::newest_schema() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("coffer.db");
        let url = StoreUrl::SqliteFile(path.clone());
        bring(&url, schema).await;
        let db = open(&path);
        let rows = rows(&db);
        for row in &rows {
            let sql = row.insert(sqlite_bytes);
            db.execute(&sql, [])
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        drop(db);
        // To the next one, and then the rest of the way at once.
        for to in [schema, schema + 1, file::newest_schema()] {
            bring(&url, to).await;
            let db = open(&path);
            for row in &rows {
                let sql = row.count(sqlite_bytes);
                let found: i64 = db.query_row(&sql, [], |row| row.get(0)).unwrap();
                assert_eq!(found, 1, "from {schema} to {to}: {sql}");
            }
        }
        file::check(&path).unwrap();
    }
}

#[tokio::test]
async fn each_migration_keeps_the_rows_of_the_version_before_on_postgres() {
    for schema in 1..file::newest_schema() {
        // What the tables are is asked of SQLite: the statements that made them are the same.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("coffer.db");
        bring(&StoreUrl::SqliteFile(path.clone()), schema).await;
        let rows = rows(&open(&path));
        let url = postgres::new_database().await;
        bring(&url, schema).await;
        let StoreUrl::Postgres(address) = &url else {
            unreachable!("it was made on PostgreSQL")
        };
        let pool = sqlx::PgPool::connect(address.expose()).await.unwrap();
        for row in &rows {
            let sql = row.insert(postgres_bytes);
            let done = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .execute(&pool)
                .await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        for to in [schema, schema + 1, file::newest_schema()] {
            bring(&url, to).await;
            for row in &rows {
                let sql = row.count(postgres_bytes);
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()));
                let found: i64 = query.fetch_one(&pool).await.unwrap();
                assert_eq!(found, 1, "from {schema} to {to}: {sql}");
            }
        }
        pool.close().await;
    }
}

/// What a Coffer that starts does with a store of an earlier schema that nothing was written into,
/// as a first start leaves it that was killed: it brings it to this build's.
async fn an_unused_one_gets_its_schema(url: &StoreUrl) {
    let (older, newest) = (file::newest_schema() - 1, file::newest_schema());
    bring(url, older).await;
    let store = Store::open_new_or_present(url, options()).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), newest);
    let role = store.insert_role("reader", Timestamp::from_micros(1)).await;
    role.unwrap();
    store.close().await;
    let store = Store::open_new_or_present(url, options()).await.unwrap();
    store.close().await;
}

/// The same of a store that is there, of an earlier schema, with something in it.
async fn is_refused_as_it_is(url: &StoreUrl) {
    let error = Store::open_new_or_present(url, options()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("coffer upgrade"), "{error}");
    let store = Store::open_as_is(url).await.unwrap();
    let schema = store.schema().await.unwrap();
    store.close().await;
    assert_eq!(schema, file::newest_schema() - 1, "nothing was changed");
}

const USED: &str = "INSERT INTO roles (name, created_at) VALUES ('admin', 1)";

#[tokio::test]
async fn a_store_that_was_used_is_left_to_its_upgrade_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = |name: &str| StoreUrl::SqliteFile(directory.path().join(name));
    an_unused_one_gets_its_schema(&url("new.db")).await;
    bring(&url("used.db"), file::newest_schema() - 1).await;
    let db = open(&directory.path().join("used.db"));
    db.execute(USED, []).unwrap();
    drop(db);
    is_refused_as_it_is(&url("used.db")).await;
}

#[tokio::test]
async fn a_store_that_was_used_is_left_to_its_upgrade_on_postgres() {
    an_unused_one_gets_its_schema(&postgres::new_database().await).await;
    let url = postgres::new_database().await;
    bring(&url, file::newest_schema() - 1).await;
    let StoreUrl::Postgres(address) = &url else {
        unreachable!("it was made on PostgreSQL")
    };
    let pool = sqlx::PgPool::connect(address.expose()).await.unwrap();
    sqlx::query(USED).execute(&pool).await.unwrap();
    pool.close().await;
    is_refused_as_it_is(&url).await;
}

/// A tool beside a Coffer neither makes a store nor brings one to another schema.
#[tokio::test]
async fn a_store_is_opened_as_it_is_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coffer.db");
    let url = StoreUrl::SqliteFile(path.clone());
    let refused = |opened: coffer_store::Result<Store>| opened.unwrap_err().to_string();
    let error = refused(Store::open_present(&url).await);
    assert!(error.contains("coffer state restore"), "{error}");
    assert!(!path.exists(), "it was made");
    let older = file::newest_schema() - 1;
    bring(&url, older).await;
    let error = refused(Store::open_present(&url).await);
    assert!(error.contains("coffer upgrade"), "{error}");
    assert_eq!(file::schema(&path).unwrap(), older);
    bring(&url, file::newest_schema()).await;
    Store::open_present(&url).await.unwrap().close().await;
    file::remove(&path).unwrap();
    assert_eq!(file::is_there(&path), None);
    let empty = postgres::new_database().await;
    let error = refused(Store::open_present(&empty).await);
    assert!(error.contains("schema 0"), "{error}");
}

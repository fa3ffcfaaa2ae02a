//! Every row of a store, read from outside, to show that a refused request changed none.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Row, SqlitePool};

/// A store's file, opened beside the store.
pub(crate) struct Rows {
    pool: SqlitePool,
    tables: Vec<(String, String)>,
}

impl Rows {
    /// Opens the store of `World::in_dir`.
    pub(crate) async fn of(dir: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(dir.join("store.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
        let mut tables = Vec::new();
        for row in sqlx::query(sql).fetch_all(&pool).await.unwrap() {
            let name: String = row.get(0);
            let sql = format!("SELECT name FROM pragma_table_info('{name}') ORDER BY cid");
            let columns = sqlx::query(AssertSqlSafe(sql))
                .fetch_all(&pool)
                .await
                .unwrap();
            let columns: Vec<_> = columns
                .iter()
                .map(|row| format!("quote({})", row.get::<String, _>(0)))
                .collect();
            tables.push((name, columns.join(" || ',' || ")));
        }
        Self { pool, tables }
    }

    /// Runs a statement that the store knows nothing of.
    pub(crate) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    /// The rows of every table as text, sorted; the audit trail left out, which grows on purpose.
    pub(crate) async fn all(&self) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for (name, columns) in self.tables.iter().filter(|(name, _)| name != "audit") {
            let sql = format!("SELECT {columns} AS line FROM {name} ORDER BY line");
            let rows = sqlx::query(AssertSqlSafe(sql))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            let lines = rows.iter().map(|row| row.get::<String, _>(0)).collect();
            all.insert(name.clone(), lines);
        }
        all
    }
}

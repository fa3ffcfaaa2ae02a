//! Migrations: built in, run by `Store::open`, each once, in order.
//!
//! A migration that was released never changes: the table `schema_version` keeps its checksum and
//! opening refuses a database whose history differs.

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Db, Sql};

/// Which migrations ran.
pub(crate) const TABLE: &str = "schema_version";

/// A migration: version, title, statements.
pub type Migration = (i64, &'static str, &'static str);

/// All migrations.
pub(crate) const MIGRATIONS: &[Migration] = &[
    (1, "first", include_str!("../migrations/0001_first.sql")),
    (2, "turn", include_str!("../migrations/0002_turn.sql")),
    (
        3,
        "trackers",
        include_str!("../migrations/0003_trackers.sql"),
    ),
    (
        4,
        "retention",
        include_str!("../migrations/0004_retention.sql"),
    ),
    (
        5,
        "retired_keys",
        include_str!("../migrations/0005_retired_keys.sql"),
    ),
    (
        6,
        "volume_limits",
        include_str!("../migrations/0006_volume_limits.sql"),
    ),
];

/// Number of the newest migration.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, _, _)| *version)
}

/// Runs the migrations that the database lacks, of this build's and then of `more`.
pub(crate) async fn migrate(db: &Db, more: &[Migration]) -> Result<()> {
    let all = [MIGRATIONS, more].concat();
    db.migrate(&all, TABLE).await
}

/// Runs the migrations that an earlier build had, whose newest was `schema`.
pub(crate) async fn migrate_to(db: &Db, schema: i64) -> Result<()> {
    let known = MIGRATIONS.iter().filter(|(version, ..)| *version <= schema);
    db.migrate(&known.copied().collect::<Vec<_>>(), TABLE).await
}

/// Whether anything was ever written into the database, beside its schema.
pub(crate) async fn is_used(db: &Db) -> Result<bool> {
    // All of the first migration: what a first start writes, and what there is without one.
    let is_there = Sql::differing(
        "SELECT COUNT(*) FROM sqlite_master WHERE name = 'settings'",
        "SELECT COUNT(*) FROM pg_tables
            WHERE tablename = 'settings' AND schemaname = current_schema()",
    );
    let is_used = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM roles)
            OR EXISTS (SELECT 1 FROM settings) OR EXISTS (SELECT 1 FROM instances)
            OR EXISTS (SELECT 1 FROM tasks) THEN 1 ELSE 0 END AS BIGINT)";
    Ok(number(db, is_there).await? > 0 && number(db, is_used.into()).await? > 0)
}

/// Number of the last migration that ran; 0 if none ever did.
pub(crate) async fn schema(db: &Db) -> Result<i64> {
    if matches!(db, Db::Direct(_)) {
        return Ok(newest());
    }
    // Each database lists its tables in a place of its own.
    let is_known = Sql::differing(
        "SELECT COUNT(*) FROM sqlite_master WHERE name = 'schema_version'",
        "SELECT COUNT(*) FROM pg_tables
            WHERE tablename = 'schema_version' AND schemaname = current_schema()",
    );
    if number(db, is_known).await? == 0 {
        return Ok(0);
    }
    let last = "SELECT COALESCE(MAX(version), 0) FROM schema_version WHERE success";
    number(db, last.into()).await
}

async fn number(db: &Db, sql: Sql) -> Result<i64> {
    let row = db.fetch_optional(sql, args![]).await?;
    let number = row.map(|row| Reader::new(&row, TABLE).int("version"));
    Ok(number.transpose()?.unwrap_or(0))
}

//! Migrations: built in, run by `Store::open`, each once, in order.
//!
//! A migration that was released never changes: the table `schema_version` keeps its checksum and
//! opening refuses a database whose history differs.

use crate::error::Result;
use crate::sql::Db;

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

/// Runs the migrations that the database lacks, of this build's and then of `more`.
pub(crate) async fn migrate(db: &Db, more: &[Migration]) -> Result<()> {
    let all = [MIGRATIONS, more].concat();
    db.migrate(&all, TABLE).await
}

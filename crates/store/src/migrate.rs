//! Migrations: built in, run by `Store::open`, each once, in order.
//!
//! A migration that was released never changes: the table `schema_version` keeps its checksum and
//! opening refuses a database whose history differs.

use crate::error::Result;
use crate::sql::Db;

/// Which migrations ran.
const TABLE: &str = "schema_version";

/// All migrations: version, title, statements.
pub(crate) const MIGRATIONS: &[(i64, &str, &str)] = &[
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
];

/// Runs the migrations that the database lacks.
pub(crate) async fn migrate(db: &Db) -> Result<()> {
    db.migrate(MIGRATIONS, TABLE).await
}

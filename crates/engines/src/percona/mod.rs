//! Percona Server 8.4, a kin of MySQL: what tells it from that; everything else is in `mysql`.
//!
//! It follows what its maker says of it. No test has met the real server: `docs/engines.md`.

use crate::mysql::Mysql;
#[cfg(feature = "guest")]
use crate::mysql_family::Family;

/// The engine of the datastore `percona`.
pub const PERCONA: Mysql = Mysql {
    name: "percona",
    versions: &["8.4"],
    unverified: &["8.4"],
    has_recipes: false,
    // It would gather figures for its maker.
    #[cfg(feature = "guest")]
    words: &["--loose-percona-telemetry-disable=ON"],
    #[cfg(feature = "guest")]
    runtime: || &Family(&PERCONA),
};

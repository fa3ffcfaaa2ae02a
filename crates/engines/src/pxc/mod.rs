//! Percona XtraDB Cluster 8.4, a kin of MySQL: what tells it from that; everything else is in
//! `mysql`. Its replication is off, as there are no clusters yet: each instance is a server by
//! itself.
//!
//! It follows what its maker says of it. No test has met the real server: `docs/engines.md`.

use crate::mysql::Mysql;
#[cfg(feature = "guest")]
use crate::mysql_family::Family;

/// The engine of the datastore `pxc`.
pub const PXC: Mysql = Mysql {
    name: "pxc",
    versions: &["8.4"],
    unverified: &["8.4"],
    has_recipes: false,
    // Without a provider nothing is replicated, whatever else is set. Not every release takes the
    // second at its start. The third would want certificates in the data directory.
    #[cfg(feature = "guest")]
    words: &[
        "--wsrep-provider=none",
        "--loose-wsrep-on=OFF",
        "--pxc-encrypt-cluster-traffic=OFF",
        "--loose-percona-telemetry-disable=ON",
    ],
    #[cfg(feature = "guest")]
    runtime: || &Family(&PXC),
};

//! Redis 7.0 and 8.0: what tells it from its kin; everything else is in `keyvalue`.

use crate::keyvalue::KeyValue;

/// The engine of the datastore `redis`.
pub const REDIS: KeyValue = KeyValue {
    name: "redis",
    versions: &["8.0", "7.0"],
    // Only the soaks of `conforming_versions` and `living_versions` meet it.
    unverified: &[],
    #[cfg(feature = "guest")]
    server: "/usr/bin/redis-server",
    config_file: "redis.conf",
    #[cfg(feature = "guest")]
    version_field: "redis_version",
    #[cfg(feature = "guest")]
    itself: || &REDIS,
};

//! Valkey 8.1 and 9.1: what tells it from its kin; everything else is in `keyvalue`.

use crate::keyvalue::KeyValue;

/// The engine of the datastore `valkey`.
pub const VALKEY: KeyValue = KeyValue {
    name: "valkey",
    versions: &["9.1", "8.1"],
    // Only the soaks of `conforming_versions` and `living_versions` meet it.
    unverified: &[],
    #[cfg(feature = "guest")]
    server: "/usr/bin/valkey-server",
    config_file: "valkey.conf",
    // The other field names the Redis that it is compatible with.
    #[cfg(feature = "guest")]
    version_field: "valkey_version",
    #[cfg(feature = "guest")]
    itself: || &VALKEY,
};

//! Units with bounds: sizes and counters that would otherwise be bare integers.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Largest volume the code handles, in GiB; the configured cap is lower.
pub const VOLUME_GIB_MAX: u32 = 65_536;

/// Size of a data volume; unit: GiB, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeSize(u32);

impl VolumeSize {
    /// Checks a size in GiB.
    pub fn gib(value: i64) -> Result<Self> {
        match u32::try_from(value) {
            Ok(gib) if (1..=VOLUME_GIB_MAX).contains(&gib) => Ok(Self(gib)),
            _ => Err(Error::Range {
                field: "volume size",
                value,
                rule: "1 to 65536 GiB",
            }),
        }
    }

    /// The size in GiB.
    pub const fn as_gib(self) -> u32 {
        self.0
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        (self.0 as u64) << 30
    }
}

macro_rules! counter {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The counter's next value.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    )*};
}

counter! {
    /// Fencing number of a replication set; a guest refuses what carries an older one.
    Generation;
    /// Number of a server's or volume's rebuilds; provider calls name it.
    Incarnation;
    /// Number of the tasks that had an instance to themselves; what is asked of a provider under an
    /// older one than it has heard of comes from a worker that lost its task.
    Turn;
    /// Number of a set's histories (a restore or promotion begins a new one).
    Timeline;
}

//! Units with bounds: sizes, rates and counters that would otherwise be bare integers.

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

macro_rules! rate {
    ($($(#[$doc:meta])* $name:ident: $bounds:expr, $rule:literal;)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Checks what was given in `field`; `Range` when it is out of bounds.
            pub fn parse(field: &'static str, value: i64) -> Result<Self> {
                match u64::try_from(value) {
                    Ok(rate) if $bounds.contains(&rate) => Ok(Self(rate)),
                    _ => Err(Error::Range { field, value, rule: $rule }),
                }
            }

            /// How many each second.
            pub const fn get(self) -> u64 {
                self.0
            }
        }
    )*};
}

rate! {
    /// Operations on a volume; unit: operations a second.
    Iops: (10..=10_000_000), "10 to 10000000 operations a second";
    /// Throughput of a volume; unit: bytes a second, 64 KiB to 1 TiB of them.
    BytesPerSecond: (65_536..=1 << 40), "65536 to 1099511627776 bytes a second";
}

/// How fast a volume may be read and written, by the names that Cinder's QoS specs have for it;
/// `None` where nothing is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IoLimits {
    /// Read operations.
    pub read_iops_sec: Option<Iops>,
    /// Write operations.
    pub write_iops_sec: Option<Iops>,
    /// Bytes read.
    pub read_bytes_sec: Option<BytesPerSecond>,
    /// Bytes written.
    pub write_bytes_sec: Option<BytesPerSecond>,
}

impl IoLimits {
    /// No limits.
    pub const NONE: Self = Self {
        read_iops_sec: None,
        write_iops_sec: None,
        read_bytes_sec: None,
        write_bytes_sec: None,
    };

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_bounds_and_say_them() {
        let field = "volume_type['read_iops_sec']";
        for good in [10, 10_000_000] {
            assert_eq!(Iops::parse(field, good).unwrap().get(), good.unsigned_abs());
        }
        for bad in [i64::MIN, -1, 0, 9, 10_000_001, i64::MAX] {
            let error = Iops::parse(field, bad).unwrap_err().to_string();
            let rule = "out of range: 10 to 10000000 operations a second";
            assert_eq!(error, format!("{field} {bad} is {rule}"));
        }
        for good in [65_536, 1 << 40] {
            let rate = BytesPerSecond::parse("read_bytes_sec", good).unwrap();
            assert_eq!(rate.get(), good.unsigned_abs());
        }
        for bad in [-65_536, 0, 65_535, (1 << 40) + 1, i64::MAX] {
            assert!(
                BytesPerSecond::parse("read_bytes_sec", bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn one_limit_is_not_none() {
        assert!(IoLimits::default().is_none());
        let limited = IoLimits {
            write_iops_sec: Iops::parse("write_iops_sec", 100).ok(),
            ..IoLimits::NONE
        };
        assert!(!limited.is_none());
    }
}

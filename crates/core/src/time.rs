//! Points in time, in microseconds since 1970 UTC: what the store keeps and the wire shows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time; unit: microseconds since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This time moved by `seconds` (may be negative); saturates.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// This time moved by `millis` (may be negative); saturates.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Milliseconds from `earlier` to this time, never negative.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        let delta = self.0.saturating_sub(earlier.0);
        if delta < 0 { 0 } else { delta / 1_000 }
    }

    /// `YYYY-MM-DDTHH:MM:SS`, no zone, no fraction: the only form every Trove client parses.
    pub fn trove(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S")
    }

    /// `YYYY-MM-DDTHH:MM:SS.ffffffZ`, as Keystone writes times.
    pub fn keystone(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%6fZ")
    }

    fn format(self, pattern: &str) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .strftime(pattern)
            .to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("%Y-%m-%dT%H:%M:%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_the_clients_parse() {
        let at = Timestamp::from_micros(1_795_234_163_123_456);
        assert_eq!(at.trove(), "2026-11-21T04:09:23");
        assert_eq!(at.keystone(), "2026-11-21T04:09:23.123456Z");
    }
}

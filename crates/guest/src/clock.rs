//! The guest's clocks; nothing else in the crate reads one, but through tokio's timers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, for init, which has no timers of tokio's.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the guest's only reader of clocks"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since 1970; for telling starts of an agent apart, not for durations.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the guest's only reader of clocks"
)]
pub(crate) fn unix_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

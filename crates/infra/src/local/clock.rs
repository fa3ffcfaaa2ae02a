//! Time for the local provider: bounded waits and the clock that goes on over restarts.
//!
//! The only file of this crate that reads a clock or sleeps. Nothing here is simulated: the local
//! provider drives a real kernel, whose work takes real time.
#![expect(
    clippy::disallowed_methods,
    reason = "waits for the kernel, which has no virtual time"
)]

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// First pause between two looks at a condition: what is waited for is mostly about to happen.
const STEP_MIN: Duration = Duration::from_micros(100);
/// Longest pause between two looks at a condition.
const STEP_MAX: Duration = Duration::from_millis(20);

/// A point in time by which something has to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// The deadline `limit` from now.
    pub(super) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Time left; zero when it has passed.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub(super) fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// Looks at a condition until it holds or `limit` is over; says whether it held.
pub(super) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Deadline::after(limit);
    let mut step = STEP_MIN;
    loop {
        if condition() {
            return true;
        }
        if deadline.is_over() {
            return false;
        }
        std::thread::sleep(step.min(deadline.left()));
        step = (step * 2).min(STEP_MAX);
    }
}

/// How long ago a file's time was; zero if it lies ahead.
pub(super) fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

/// Milliseconds since the host booted: comparable between processes of one boot.
pub(super) fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("this clock exists on every Linux");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_at_the_limit() {
        assert!(!wait_until(Duration::from_millis(5), || false));
        let mut left = 3;
        assert!(wait_until(Duration::from_secs(5), || {
            left -= 1;
            left == 0
        }));
    }
}

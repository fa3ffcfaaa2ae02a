//! The time of day without its jumps: when somebody sets the clock, deadlines and waits of tasks
//! are set with it, so that none is given up early and none sleeps for hours.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::time::Timestamp;

use crate::clock::Clock;
use crate::limits;

/// A time of day that runs with the monotonic clock until it is told of a jump.
#[derive(Debug)]
pub(super) struct Steady {
    base: Mutex<Base>,
}

#[derive(Debug, Clone, Copy)]
struct Base {
    wall: Timestamp,
    mono: Duration,
    /// By how much the clock was set and followed, all jumps together.
    set_ms: i64,
}

impl Steady {
    /// Begins with the clock's own time.
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self {
            base: Mutex::new(Base {
                wall: clock.now(),
                mono: clock.monotonic(),
                set_ms: 0,
            }),
        }
    }

    /// The time.
    pub(super) fn now(&self, clock: &dyn Clock) -> Timestamp {
        let Base { wall, mono, .. } = *self.lock();
        let since = clock.monotonic().saturating_sub(mono);
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(wall.micros().saturating_add(micros))
    }

    /// By how much the clock was set since, if that is more than clocks are corrected by.
    pub(super) fn jump_ms(&self, clock: &dyn Clock) -> Option<i64> {
        let micros = clock.now().micros() - self.now(clock).micros();
        let ms = micros / 1_000;
        if ms.abs() >= limits::CLOCK_JUMP_MS {
            return Some(ms);
        }
        // Small corrections are simply followed.
        self.follow(clock, 0);
        None
    }

    /// Takes the clock's own time from now on, after it was set by this much.
    pub(super) fn follow(&self, clock: &dyn Clock, by_ms: i64) {
        let mut base = self.lock();
        *base = Base {
            wall: clock.now(),
            mono: clock.monotonic(),
            set_ms: base.set_ms + by_ms,
        };
    }

    /// By how much the clock was set until now, all jumps together; unit: milliseconds.
    pub(super) fn set_ms(&self) -> i64 {
        self.lock().set_ms
    }

    fn lock(&self) -> MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Virtual time and seeded randomness.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use coffer_control::clock::{Clock, Entropy};
use coffer_core::time::Timestamp;

/// 2026-11-21T00:00:00Z in microseconds.
const EPOCH_MICROS: i64 = 1_795_219_200_000_000;

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct SimClock {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    now: Duration,
    /// By how much the time of day was set; unit: seconds.
    set_by: i64,
    sleepers: Vec<Waker>,
}

impl SimClock {
    /// Moves the clock and wakes who sleeps.
    pub fn advance(&self, by: Duration) {
        let sleepers = {
            let mut inner = self.lock();
            inner.now += by;
            std::mem::take(&mut inner.sleepers)
        };
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Sets the time of day by this much; what is measured goes on as before.
    pub fn jump(&self, seconds: i64) {
        self.lock().set_by += seconds;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let inner = self.lock();
        let micros = i64::try_from(inner.now.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(EPOCH_MICROS + micros).plus_seconds(inner.set_by)
    }

    fn monotonic(&self) -> Duration {
        self.lock().now
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.monotonic() + duration;
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.now >= until {
                return Poll::Ready(());
            }
            inner.sleepers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A small seeded generator (SplitMix64): the same numbers on every machine and version.
#[derive(Debug)]
pub struct Seeded {
    state: Mutex<u64>,
}

impl Seeded {
    /// The generator of this seed.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(seed),
        }
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is positive.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether an event of this probability, in percent, happens.
    pub fn percent(&self, probability: u64) -> bool {
        self.below(100) < probability
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

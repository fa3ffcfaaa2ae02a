//! Failed logins slowed down, per user name and address.
//!
//! Kept in memory and bounded: what is forgotten costs an attacker nothing but a restart of
//! Coffer or a flood that the rate of password hashing bounds anyway.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
    allowed_at: Duration,
}

/// Who failed to log in, and when the next try is allowed.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: Mutex<HashMap<String, Failures>>,
}

impl Throttle {
    /// How long the next try has to wait; `now` is monotonic time.
    pub(super) fn wait(&self, key: &str, now: Duration) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed_at = failures.get(key)?.allowed_at;
        allowed_at.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Notes a failure: from the fourth on, each doubles the wait.
    pub(super) fn failed(&self, key: &str, now: Duration) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= limits::FAILED_LOGINS_KEPT && !failures.contains_key(key) {
            forget(&mut failures, now);
        }
        let entry = failures.entry(key.to_owned()).or_insert(Failures {
            count: 0,
            last: now,
            allowed_at: now,
        });
        if now.saturating_sub(entry.last) > limits::FAILED_LOGIN_MEMORY {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        entry.allowed_at = now + delay(entry.count);
    }

    /// Forgets the failures of one who logged in.
    pub(super) fn succeeded(&self, key: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

fn delay(count: u32) -> Duration {
    let doublings = count.saturating_sub(limits::FAILED_LOGINS_FREE);
    if doublings == 0 {
        return Duration::ZERO;
    }
    let seconds = 1_u64 << doublings.min(16).saturating_sub(1);
    Duration::from_secs(seconds).min(limits::FAILED_LOGIN_DELAY_MAX)
}

/// Makes room: first what is old, then, if all is new, half of it.
fn forget(failures: &mut HashMap<String, Failures>, now: Duration) {
    failures.retain(|_, one| now.saturating_sub(one.last) <= limits::FAILED_LOGIN_MEMORY);
    if failures.len() >= limits::FAILED_LOGINS_KEPT {
        let mut keep = false;
        failures.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    #[test]
    fn the_first_three_are_free_and_then_waits_double() {
        let throttle = Throttle::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            throttle.failed("u", START);
            waits.push(throttle.wait("u", START).map_or(0, |wait| wait.as_secs()));
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4]);
        assert_eq!(throttle.wait("other", START), None);
        assert_eq!(throttle.wait("u", START + Duration::from_secs(4)), None);
    }

    #[test]
    fn success_and_time_forget() {
        let throttle = Throttle::default();
        (0..9).for_each(|_| throttle.failed("u", START));
        assert!(throttle.wait("u", START).is_some());
        throttle.succeeded("u");
        assert_eq!(throttle.wait("u", START), None);
        (0..9).for_each(|_| throttle.failed("u", START));
        let later = START + limits::FAILED_LOGIN_MEMORY + Duration::from_secs(1);
        throttle.failed("u", later);
        assert_eq!(throttle.wait("u", later), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..limits::FAILED_LOGINS_KEPT * 2 {
            throttle.failed(&n.to_string(), START);
        }
        let kept = throttle.failures.lock().unwrap().len();
        assert!(kept <= limits::FAILED_LOGINS_KEPT, "{kept}");
    }
}

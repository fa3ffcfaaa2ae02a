//! Rate limits: a leaky bucket per project and verb, in memory and per process, as in Trove.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coffer_core::id::TenantId;
use http::Method;

use crate::limits;

/// Verbs that are limited, in the order they are listed.
pub const VERBS: [&str; 4] = ["POST", "PUT", "DELETE", "GET"];

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// How full it is; unit: requests.
    level: f64,
    /// Monotonic time of the level.
    at: Duration,
}

impl Bucket {
    fn drained(self, now: Duration, per_minute: u32) -> Self {
        let leak = now.saturating_sub(self.at).as_secs_f64() * f64::from(per_minute) / 60.0;
        Self {
            level: (self.level - leak).max(0.0),
            at: now,
        }
    }
}

/// The buckets of every project.
#[derive(Debug)]
pub struct Rates {
    per_minute: u32,
    buckets: Mutex<HashMap<TenantId, [Bucket; 4]>>,
}

/// What is left of one verb's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// The verb.
    pub verb: &'static str,
    /// Requests left now.
    pub requests: u32,
    /// Until the next request is allowed.
    pub wait: Duration,
}

impl Rates {
    /// Buckets of this many requests per minute; 0 means no limit.
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            buckets: Mutex::default(),
        }
    }

    /// Requests per minute; 0 means no limit.
    pub fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Counts a request, or tells how long it has to wait. `now` is monotonic time.
    pub fn take(&self, tenant_id: &TenantId, method: &Method, now: Duration) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let index = index(method)?;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(tenant_id) {
            self.make_room(&mut buckets, now);
            buckets.insert(tenant_id.clone(), [Bucket::default(); 4]);
        }
        let bucket = &mut buckets.get_mut(tenant_id)?[index];
        *bucket = bucket.drained(now, self.per_minute);
        let excess = bucket.level + 1.0 - f64::from(self.per_minute);
        if excess > 0.0 {
            return Some(Duration::from_secs_f64(
                excess * 60.0 / f64::from(self.per_minute),
            ));
        }
        bucket.level += 1.0;
        None
    }

    /// What is left of each verb.
    pub fn remaining(&self, tenant_id: &TenantId, now: Duration) -> Vec<Remaining> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = buckets.get(tenant_id).copied().unwrap_or_default();
        let of_verb = |(verb, bucket): (&'static str, Bucket)| {
            let free = f64::from(self.per_minute) - bucket.drained(now, self.per_minute).level;
            let wait = ((1.0 - free).max(0.0)) * 60.0 / f64::from(self.per_minute.max(1));
            Remaining {
                verb,
                requests: whole(free),
                wait: Duration::from_secs_f64(wait),
            }
        };
        VERBS.into_iter().zip(of_tenant).map(of_verb).collect()
    }

    /// Drops buckets that have run empty; if none has, all of them.
    fn make_room(&self, buckets: &mut HashMap<TenantId, [Bucket; 4]>, now: Duration) {
        if buckets.len() < limits::RATE_BUCKETS {
            return;
        }
        buckets.retain(|_, four| {
            four.iter()
                .any(|one| one.drained(now, self.per_minute).level > 0.0)
        });
        if buckets.len() >= limits::RATE_BUCKETS {
            buckets.clear();
        }
    }
}

/// PATCH counts as PUT; what only looks counts as GET.
fn index(method: &Method) -> Option<usize> {
    let verb = match *method {
        Method::PATCH => "PUT",
        Method::HEAD => "GET",
        ref other => other.as_str(),
    };
    VERBS.iter().position(|&one| one == verb)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number between 0 and a u32 is cut to its whole part"
)]
fn whole(free: f64) -> u32 {
    free.clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_refuses_and_leaks() {
        let rates = Rates::new(60);
        let tenant: TenantId = "t".parse().unwrap();
        let start = Duration::from_secs(100);
        for _ in 0..60 {
            assert_eq!(rates.take(&tenant, &Method::GET, start), None);
        }
        let wait = rates.take(&tenant, &Method::GET, start).unwrap();
        assert!((wait.as_secs_f64() - 1.0).abs() < 0.01, "{wait:?}");
        assert_eq!(
            rates.take(&tenant, &Method::POST, start),
            None,
            "each verb has its own"
        );
        assert_eq!(rates.take(&"u".parse().unwrap(), &Method::GET, start), None);
        assert_eq!(
            rates.take(&tenant, &Method::GET, start + Duration::from_secs(1)),
            None
        );
        assert_eq!(rates.remaining(&tenant, start)[0].requests, 59);
    }

    #[test]
    fn zero_is_no_limit() {
        let rates = Rates::new(0);
        let tenant: TenantId = "t".parse().unwrap();
        assert!((0..10_000).all(|_| rates.take(&tenant, &Method::GET, Duration::ZERO).is_none()));
    }
}

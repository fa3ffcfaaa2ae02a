//! The one door to time and randomness, so that the whole control plane runs in a seeded
//! simulation.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::time::Timestamp;
use uuid::Uuid;

/// Where time comes from.
#[async_trait]
pub trait Clock: Send + Sync + Debug {
    /// The time of day; may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point; never jumps. Leases are measured with it.
    fn monotonic(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// Where randomness comes from.
pub trait Entropy: Send + Sync + Debug {
    /// Fills the buffer with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// Sixteen unpredictable bytes.
    fn bytes16(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// The machine's clock; its monotonic time starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where time enters"
    )]
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where time enters"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The machine's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        aws_lc_rs::rand::fill(buffer).expect("the kernel's random generator is always there");
    }
}

/// A new id: a version 7 UUID, so that ids grow with time.
pub fn new_uuid(clock: &dyn Clock, entropy: &dyn Entropy) -> Uuid {
    let millis = u64::try_from(clock.now().micros() / 1_000).unwrap_or(0);
    let mut random = [0; 10];
    entropy.fill(&mut random);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Random text of `chars` characters from letters and digits that are not easily confused.
pub fn random_text(entropy: &dyn Entropy, chars: usize) -> String {
    const ALPHABET: &[u8; 56] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789_";
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        // Bytes past the last multiple of 56 would make some characters likelier.
        let byte = entropy.bytes16()[0];
        if byte < 224 {
            text.push(char::from(ALPHABET[usize::from(byte % 56)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_differ() {
        let clock = SystemClock::new();
        let ids: Vec<_> = (0..100).map(|_| new_uuid(&clock, &SystemEntropy)).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(ids[0].get_version_num(), 7);
    }

    #[test]
    fn random_text_has_the_length_asked() {
        assert_eq!(random_text(&SystemEntropy, 36).len(), 36);
    }
}

//! A token bucket per key: a flood of one client is answered 429 with the seconds to wait, and nobody else notices.

use std::collections::HashMap;
use std::time::Instant;

use grid_engine::Fingerprint;
use parking_lot::Mutex;

/// Keys remembered at once; beyond it the full buckets are forgotten, which changes nothing for their owners.
const KEYS_MAX: usize = 100_000;

/// The buckets.
#[derive(Debug)]
pub(crate) struct Throttle {
    per_second: u32,
    burst: u32,
    buckets: Mutex<HashMap<Fingerprint, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Millionths of a request.
    tokens: u64,
    filled: Instant,
}

/// What the bucket says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Seconds until the bucket has a request again, at least 1 when refused.
    pub(crate) wait_s: u64,
}

impl Throttle {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.max(1), burst: burst.max(1), buckets: Mutex::default() }
    }

    /// Takes one request out of a key's bucket.
    pub(crate) fn take(&self, key: Fingerprint, now: Instant) -> Verdict {
        const ONE: u64 = 1_000_000;
        let full = u64::from(self.burst) * ONE;
        let mut buckets = self.buckets.lock();
        if buckets.len() >= KEYS_MAX && !buckets.contains_key(&key) {
            let rate = u64::from(self.per_second);
            buckets.retain(|_, bucket| bucket.after(now, rate, full) < full);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: full, filled: now });
        let tokens = bucket.after(now, self.per_second.into(), full);
        let allowed = tokens >= ONE;
        *bucket = Bucket { tokens: if allowed { tokens - ONE } else { tokens }, filled: now };
        let short = ONE.saturating_sub(bucket.tokens);
        Verdict {
            allowed,
            limit: self.burst,
            remaining: (bucket.tokens / ONE) as u32,
            wait_s: if allowed { 0 } else { short.div_ceil(u64::from(self.per_second) * ONE).max(1) },
        }
    }
}

impl Bucket {
    fn after(&self, now: Instant, per_second: u64, full: u64) -> u64 {
        let micros =
            now.saturating_duration_since(self.filled).as_micros().min(u128::from(u32::MAX) * 1_000) as u64;
        self.tokens.saturating_add(micros.saturating_mul(per_second)).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_allowed_then_refused_then_refilled() {
        let throttle = Throttle::new(2, 3);
        let (key, start) = (Fingerprint([1; 32]), Instant::now());
        let first: Vec<bool> = (0..4).map(|_| throttle.take(key, start).allowed).collect();
        assert_eq!(first, [true, true, true, false]);
        assert_eq!(throttle.take(key, start).wait_s, 1);
        assert!(throttle.take(Fingerprint([2; 32]), start).allowed, "another key has its own bucket");
        let later = start + Duration::from_millis(500);
        assert!(throttle.take(key, later).allowed);
        assert!(!throttle.take(key, later).allowed);
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!(throttle.take(key, much_later).remaining, 2, "a bucket never holds more than its burst");
    }
}

//! Two-level throttles: a request beyond its bucket is refused; refusals beyond theirs end the connection.

use crate::config::Rate;

/// A token bucket in integer nanoseconds: `level` is how much time's worth of tokens is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    token_ns: u64,
    full_ns: u64,
    level_ns: u64,
    at: u64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: u64) -> Self {
        let burst = u64::from(rate.burst.max(1));
        let token_ns = match u64::from(rate.per_second) {
            // Never refilled.
            0 => u64::MAX / burst,
            per_second => (1_000_000_000 / per_second).max(1),
        };
        let full_ns = token_ns * burst;
        Self { token_ns, full_ns, level_ns: full_ns, at: now }
    }

    /// Takes one token, or says in how many nanoseconds there will be one.
    #[inline]
    pub(crate) fn take(&mut self, now: u64) -> Result<(), u64> {
        self.spend(self.token_ns, now)
    }

    /// Takes so many tokens, or says in how many nanoseconds there will be as many. What is more than the bucket holds takes
    /// a full one.
    pub(crate) fn take_many(&mut self, tokens: u32, now: u64) -> Result<(), u64> {
        self.spend(self.token_ns.saturating_mul(tokens.into()).min(self.full_ns), now)
    }

    #[inline]
    fn spend(&mut self, cost_ns: u64, now: u64) -> Result<(), u64> {
        self.level_ns = self.level_ns.saturating_add(now.saturating_sub(self.at)).min(self.full_ns);
        self.at = self.at.max(now);
        match self.level_ns.checked_sub(cost_ns) {
            Some(left) => {
                self.level_ns = left;
                Ok(())
            }
            None => Err(cost_ns - self.level_ns),
        }
    }

    /// Whether less than a tenth is left.
    pub(crate) fn is_low(&self) -> bool {
        self.level_ns < self.full_ns / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 1_000, burst: 10 }, 0);
        for _ in 0..10 {
            assert_eq!(bucket.take(0), Ok(()));
        }
        assert_eq!(bucket.take(0), Err(1_000_000));
        assert!(bucket.is_low());
        assert_eq!(bucket.take(400_000), Err(600_000));
        assert_eq!(bucket.take(1_000_000), Ok(()));
        assert_eq!(
            (0..100).filter(|_| bucket.take(1_000_000_000_000).is_ok()).count(),
            10,
            "it never holds more"
        );
    }

    #[test]
    fn many_tokens_are_taken_at_once_or_not_at_all() {
        let mut bucket = Bucket::new(Rate { per_second: 1_000, burst: 10 }, 0);
        assert_eq!(bucket.take_many(7, 0), Ok(()));
        assert_eq!(bucket.take_many(4, 0), Err(1_000_000), "three are left");
        assert_eq!(bucket.take_many(3, 0), Ok(()), "and were not touched");
        assert_eq!(
            bucket.take_many(64, 9_000_000),
            Err(1_000_000),
            "more than it holds wait until it is full"
        );
        assert_eq!(bucket.take_many(64, 10_000_000), Ok(()));
        assert_eq!(bucket.take(10_000_000), Err(1_000_000));
    }
}

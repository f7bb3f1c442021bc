//! Keeps the client below the venue's throttle by its own clock: a request that would be refused for its haste
//! waits here instead, and the order of requests stays what it was.

/// A token bucket as one moment in time (GCRA): when the bucket will be full again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    interval_ns: u64,
    allowance_ns: u64,
    full_at: u64,
}

impl Bucket {
    /// So many per second and so many at once; zero per second is no limit.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        // The venue's clock and ours count the same second a little differently: stay five percent below.
        let interval_ns = if per_second == 0 { 0 } else { 1_050_000_000 / u64::from(per_second) };
        Self { interval_ns, allowance_ns: interval_ns * u64::from(burst.max(1) - 1), full_at: 0 }
    }

    /// Takes so many, or says when to ask again. More than there can ever be takes all.
    pub(crate) fn take(&mut self, count: u32, now: u64) -> Result<(), u64> {
        let beyond_one = self.interval_ns.saturating_mul(count.max(1).into()) - self.interval_ns;
        let beyond_one = beyond_one.min(self.allowance_ns);
        let ready = self.full_at.saturating_sub(self.allowance_ns - beyond_one);
        if now < ready {
            return Err(ready);
        }
        self.full_at = self.full_at.max(now) + self.interval_ns + beyond_one;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(1_000, 3);
        let now = 1_000_000_000;
        assert!((0..3).all(|_| bucket.take(1, now).is_ok()));
        let next = bucket.take(1, now).unwrap_err();
        assert_eq!(next, now + 1_050_000);
        assert!(bucket.take(1, next).is_ok() && bucket.take(1, next).is_err());
        assert!((0..10_000).all(|_| Bucket::new(0, 0).take(64, now).is_ok()), "zero is no limit");
    }

    #[test]
    fn many_at_once_wait_until_there_are_as_many_and_more_than_all_until_there_are_all() {
        let mut bucket = Bucket::new(1_000, 10);
        let now = 1_000_000_000;
        assert!(bucket.take(7, now).is_ok());
        assert_eq!(bucket.take(4, now), Err(now + 1_050_000), "three are left");
        assert!(bucket.take(3, now).is_ok() && bucket.take(1, now).is_err());
        assert_eq!(bucket.take(64, now), Err(now + 10_500_000));
        assert!(bucket.take(64, now + 10_500_000).is_ok());
        assert_eq!(bucket.take(1, now + 10_500_000), Err(now + 10_500_000 + 1_050_000));
    }
}

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

    /// Takes one, or says when to ask again.
    pub(crate) fn take(&mut self, now: u64) -> Result<(), u64> {
        let ready = self.full_at.saturating_sub(self.allowance_ns);
        if now < ready {
            return Err(ready);
        }
        self.full_at = self.full_at.max(now) + self.interval_ns;
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
        assert!((0..3).all(|_| bucket.take(now).is_ok()));
        let next = bucket.take(now).unwrap_err();
        assert_eq!(next, now + 1_050_000);
        assert!(bucket.take(next).is_ok() && bucket.take(next).is_err());
        assert!((0..10_000).all(|_| Bucket::new(0, 0).take(now).is_ok()), "zero is no limit");
    }
}

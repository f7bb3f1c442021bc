//! The pace of dialling a peer that does not answer: longer each time up to a bound, never in step with the others.

use std::time::Duration;

/// Waits between attempts, drawn from an own seed so that two nodes do not knock at one time for ever.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
    dice: u64,
}

impl Backoff {
    pub(crate) fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self { shortest, longest, next: shortest, dice: seed }
    }

    /// How long to wait after an attempt that failed: between half and the whole of a span that doubles.
    pub(crate) fn wait(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.longest);
        // SplitMix64; any seed will do, zero too.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let half = (span / 2).as_nanos() as u64;
        Duration::from_nanos(half + z % (half + 1))
    }

    /// The peer answered.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_with_jitter_and_begin_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(1000), 1);
        for span in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
            let wait = backoff.wait();
            assert!(ms(span) / 2 <= wait && wait <= ms(span), "{wait:?} of {span} ms");
        }
        backoff.reset();
        assert!(backoff.wait() <= ms(50));
    }

    #[test]
    fn two_seeds_do_not_knock_in_step() {
        let mut a = Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 1);
        let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 2);
        assert_ne!([a.wait(), a.wait()], [b.wait(), b.wait()]);
    }
}

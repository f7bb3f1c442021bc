//! How long a call waits before it asks the next supplier: longer each time, and never all calls for equally long.
//!
//! A pure function of the call's number and of how often it has asked, so that a replayed call waits as it did.

use std::time::Duration;

use crate::choice::mixed;

/// How waits grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// Before the second attempt, at most.
    pub(crate) first: Duration,
    /// Before any attempt, at most.
    pub(crate) longest: Duration,
}

/// The wait of the call with this number after so many attempts: between half of its step and all of it. Nothing
/// before the first attempt.
pub(crate) fn wait(growth: &Growth, call: u128, attempts: u32) -> Duration {
    let Some(doublings) = attempts.checked_sub(1) else {
        return Duration::ZERO;
    };
    let step = growth.first.saturating_mul(1 << doublings.min(20)).min(growth.longest);
    let half = step / 2;
    let span_ns = u64::try_from((step - half).as_nanos()).unwrap_or(u64::MAX);
    let seed = (call as u64) ^ (call >> 64) as u64 ^ u64::from(attempts).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    half + Duration::from_nanos(((u128::from(mixed(seed)) * u128::from(span_ns)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth { first: Duration::from_millis(10), longest: Duration::from_millis(60) };

    #[test]
    fn steps_double_up_to_the_longest_and_each_wait_lies_in_the_upper_half_of_its_step() {
        for (attempts, step) in [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (90, 60)] {
            for call in 0..1_000 {
                let wait = wait(&GROWTH, call, attempts);
                let step = Duration::from_millis(step);
                assert!(wait >= step / 2 && wait <= step, "{attempts}, {call}: {wait:?}");
            }
        }
        assert_eq!(wait(&GROWTH, 7, 0), Duration::ZERO);
    }

    #[test]
    fn the_same_call_waits_the_same_and_different_calls_spread() {
        let waits: Vec<Duration> = (0..1_000).map(|call| wait(&GROWTH, call, 2)).collect();
        assert_eq!(waits, (0..1_000).map(|call| wait(&GROWTH, call, 2)).collect::<Vec<_>>());
        for tenth in 0..10 {
            let (from, to) = (Duration::from_millis(10 + tenth), Duration::from_millis(11 + tenth));
            let here = waits.iter().filter(|wait| **wait >= from && **wait < to).count();
            assert!((50..200).contains(&here), "{here} of 1,000 between {from:?} and {to:?}");
        }
    }
}

//! How well a supplier serves an instrument: what the calls of the present window add up to, what became of the last
//! one, and whether the supplier is on the instrument's roster.
//!
//! A window is judged once, when it closes, so that no call is ever punished twice. What decides is counted exactly;
//! the histograms only say how far from the line it was.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::Pair;
use crate::ids::{AccountId, InstrumentId};
use crate::instrument::QualityTerms;
use crate::sla::{Fault, SlaTerms};
use crate::units::{Nanos, Tokens, Usd};

/// Whether a supplier may be asked to deliver an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub enum Standing {
    /// It may.
    #[default]
    Active,
    /// It is off the roster.
    Suspended {
        /// Since when.
        since: Nanos,
        /// Each reason is lifted for itself.
        why: Reasons,
    },
}

/// Why a supplier is off the roster of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Reasons {
    /// It broke the terms of service too often, or failed its probes.
    pub breach: bool,
    /// An attestation of its quality is missing, over, or below the floor.
    pub quality: bool,
}

impl Standing {
    /// True while it may be asked.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Why not, if not.
    #[must_use]
    pub const fn reasons(self) -> Reasons {
        match self {
            Self::Active => Reasons { breach: false, quality: false },
            Self::Suspended { why, .. } => why,
        }
    }

    /// The standing for these reasons; one that lasts keeps its beginning.
    pub(crate) fn for_reasons(self, why: Reasons, now: Nanos) -> Self {
        match self {
            _ if why == Reasons::default() => Self::Active,
            Self::Active => Self::Suspended { since: now, why },
            Self::Suspended { since, .. } => Self::Suspended { since, why },
        }
    }
}

/// One supplier's service of one instrument, since terms were first set for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Service {
    account: AccountId,
    instrument: InstrumentId,
    /// The window that is open.
    pub window: Window,
    /// The last one that closed with a call in it.
    pub last: Option<Closed>,
    /// Broken windows in a row.
    pub breaches: u8,
    /// Broken windows so far.
    pub breaches_total: u64,
    /// Probes in a row with the same result.
    pub probes: u8,
    /// That result.
    pub probes_pass: bool,
    /// When the last probe was.
    pub probed_at: Nanos,
}

impl Pair for Service {
    fn new(account: AccountId, instrument: InstrumentId, _: Nanos) -> Self {
        Self { account, instrument, ..Self::default() }
    }

    fn pair(&self) -> (AccountId, InstrumentId) {
        (self.account, self.instrument)
    }
}

/// Parts of a window for which it is remembered whether the supplier was asked and whether it served.
const PARTS: u64 = 60;

/// What calls add up to.
///
/// Invariants: `late` ≤ `timed` ≤ `calls`, `slow` ≤ `paced` ≤ `calls`, `lies` ≤ `calls`; the histograms hold `timed` and
/// `paced` values; what was served was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Window {
    /// Calls that it delivered whole. Those that were cut short, by the client or by a fault, are none.
    pub calls: u32,
    /// Faults, by [`Fault`].
    pub faults: [u32; Fault::ALL.len()],
    /// Calls whose counts, as it stated them, were beyond belief.
    pub lies: u32,
    /// Calls of which it is known when the first token came,
    pub timed: u32,
    /// and of these those beyond the ceiling.
    pub late: u32,
    /// Calls of which the speed is known,
    pub paced: u32,
    /// and of these those below the floor.
    pub slow: u32,
    /// What had been paid for the tokens that it delivered.
    pub value: Usd,
    /// Tokens that it delivered and that were billed.
    pub tokens: Tokens,
    asked: u64,
    served: u64,
    ttft_us: Histogram,
    tokens_per_second: Histogram,
}

/// What a delivered call says of its supplier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    /// Microseconds to the first token, where that was seen.
    pub(crate) ttft_us: Option<u32>,
    /// Tokens and the microseconds from the first of them to the end, where that was seen.
    pub(crate) pace: Option<(u64, u32)>,
    /// Its counts were beyond belief.
    pub(crate) lied: bool,
}

/// Which terms a window broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, Archive, Freeze, Thaw)]
pub struct Broken {
    /// Too many began late.
    pub ttft: bool,
    /// Too many were slow.
    pub pace: bool,
    /// Too many failed or lied.
    pub errors: bool,
    /// It was away too often.
    pub uptime: bool,
}

impl Broken {
    /// How many.
    #[must_use]
    pub const fn count(self) -> u8 {
        self.ttft as u8 + self.pace as u8 + self.errors as u8 + self.uptime as u8
    }
}

/// A window as it was when it closed, or as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, Archive, Freeze, Thaw)]
pub struct Figures {
    /// Calls delivered whole.
    pub calls: u32,
    /// Calls failed, patience asked for included.
    pub faults: u32,
    /// Calls with counts beyond belief.
    pub lies: u32,
    /// Failed and lied, of all calls, in hundredths of a percent.
    pub error_bps: u16,
    /// Parts of the window with service, of those in which it was asked.
    pub uptime_bps: u16,
    /// The terms' percentile of the time to first token, rounded up by at most an eighth; 0 where none was seen.
    pub ttft_us: u32,
    /// The speed that the terms' share of the calls reached, rounded down by at most an eighth; 0 where none was seen.
    pub tokens_per_second: u32,
    /// Beyond the ceiling.
    pub late: u32,
    /// Below the floor.
    pub slow: u32,
    /// What had been paid for the tokens delivered.
    pub value: Usd,
    /// Which terms it broke.
    pub broken: Broken,
}

/// A closed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Closed {
    /// When.
    pub at: Nanos,
    /// What it came to.
    pub figures: Figures,
    /// The penalty for it.
    pub penalty: Usd,
}

fn bps(part: u64, whole: u64) -> u16 {
    (part * 10_000).checked_div(whole).map_or(0, |share| share.min(10_000) as u16)
}

impl Window {
    /// Marks the part of the window in which `at` lies.
    fn mark(&mut self, terms: &SlaTerms, at: Nanos, served: bool) {
        let window = terms.window.0.max(1);
        let part = at.0 % window / window.div_ceil(PARTS).max(1);
        self.asked |= 1 << part;
        self.served |= u64::from(served) << part;
    }

    /// A call was delivered whole.
    pub(crate) fn deliver(
        &mut self,
        terms: &SlaTerms,
        quality: &QualityTerms,
        at: Nanos,
        delivered: &Delivered,
    ) {
        self.mark(terms, at, true);
        self.calls = self.calls.saturating_add(1);
        self.lies = self.lies.saturating_add(delivered.lied.into());
        if let Some(ttft_us) = delivered.ttft_us {
            self.timed = self.timed.saturating_add(1);
            self.late = self.late.saturating_add(is_late(ttft_us, quality, 0).into());
            self.ttft_us.count(ttft_us);
        }
        if let Some((tokens, micros)) = delivered.pace {
            self.paced = self.paced.saturating_add(1);
            self.slow = self.slow.saturating_add(is_slow(tokens, micros, quality, 0).into());
            let per_second = tokens.saturating_mul(1_000_000) / u64::from(micros.max(1));
            self.tokens_per_second.count(u32::try_from(per_second).unwrap_or(u32::MAX));
        }
    }

    /// What had been paid for tokens that it delivered, of whatever call.
    pub(crate) fn earn(&mut self, tokens: Tokens, value: Usd) {
        self.value = Usd(self.value.0.saturating_add(value.0));
        self.tokens = Tokens(self.tokens.0.saturating_add(tokens.0));
    }

    /// An attempt failed.
    pub(crate) fn fail(&mut self, terms: &SlaTerms, at: Nanos, fault: Fault) {
        self.mark(terms, at, false);
        let count = &mut self.faults[fault as usize];
        *count = count.saturating_add(1);
    }

    /// True while it was never asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asked == 0
    }

    /// What it comes to under these terms.
    #[must_use]
    pub fn figures(&self, terms: &SlaTerms) -> Figures {
        let faults: u64 = self.faults.iter().copied().map(u64::from).sum();
        let errors = faults - u64::from(self.faults[Fault::Overloaded as usize]) + u64::from(self.lies);
        let judged = u64::from(self.calls) + errors - u64::from(self.lies);
        let (asked, served) = (self.asked.count_ones().into(), self.served.count_ones().into());
        let error_bps = bps(errors, judged);
        let uptime_bps = if asked == 0 { 10_000 } else { bps(served, asked) };
        let enough = u64::from(self.calls) + faults >= u64::from(terms.sample);
        // Cross-multiplied, so that a share is compared exactly.
        let beyond = |part: u32, of: u32, kept_bps: u16| {
            kept_bps > 0 && u64::from(part) * 10_000 > u64::from(of) * u64::from(10_000 - kept_bps)
        };
        let broken = Broken {
            ttft: beyond(self.late, self.timed, terms.ttft_percentile_bps),
            pace: beyond(self.slow, self.paced, terms.pace_percentile_bps),
            errors: errors * 10_000 > judged * u64::from(terms.error_max_bps),
            uptime: served * 10_000 < asked * u64::from(terms.uptime_min_bps),
        };
        Figures {
            calls: self.calls,
            faults: u32::try_from(faults).unwrap_or(u32::MAX),
            lies: self.lies,
            error_bps,
            uptime_bps,
            ttft_us: self.ttft_us.at_most(terms.ttft_percentile_bps),
            tokens_per_second: self.tokens_per_second.at_least(terms.pace_percentile_bps),
            late: self.late,
            slow: self.slow,
            value: self.value,
            broken: if enough { broken } else { Broken::default() },
        }
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counted = self.late <= self.timed
            && self.timed <= self.calls
            && self.slow <= self.paced
            && self.paced <= self.calls
            && self.lies <= self.calls
            && self.served & !self.asked == 0
            && self.ttft_us.total() == u64::from(self.timed)
            && self.tokens_per_second.total() == u64::from(self.paced);
        if counted { Ok(()) } else { Err(format!("a window adds up: {self:?}")) }
    }
}

/// Whether a first token came after the instrument's ceiling and a tolerance. Never where no ceiling is published.
pub(crate) fn is_late(ttft_us: u32, quality: &QualityTerms, tolerance_bps: u16) -> bool {
    let ceiling_us = u64::from(quality.ttft_ceiling_ms) * 1_000;
    ceiling_us > 0 && u64::from(ttft_us) * 10_000 > ceiling_us * (10_000 + u64::from(tolerance_bps))
}

/// Whether tokens came slower than the instrument's floor less a tolerance. Never where no floor is published.
pub(crate) fn is_slow(tokens: u64, micros: u32, quality: &QualityTerms, tolerance_bps: u16) -> bool {
    let floor = u128::from(quality.tokens_per_second_floor);
    let kept = u128::from(10_000 - tolerance_bps.min(10_000));
    u128::from(tokens) * 1_000_000 * 10_000 < floor * u128::from(micros) * kept
}

/// Counts of 32-bit values, each power of two in eight parts: what comes out is off by at most an eighth.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
struct Histogram {
    counts: [u32; Self::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS] }
    }
}

impl Histogram {
    const PARTS: u32 = 8;
    const BUCKETS: usize = 240;

    const fn bucket(value: u32) -> usize {
        if value < Self::PARTS {
            return value as usize;
        }
        let power = value.ilog2();
        ((power - 2) * Self::PARTS + (value >> (power - 3) & (Self::PARTS - 1))) as usize
    }

    /// The least value that falls into a bucket.
    const fn least(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < 8 { bucket } else { (8 + bucket % 8) << (bucket / 8 - 1) }
    }

    fn count(&mut self, value: u32) {
        let count = &mut self.counts[Self::bucket(value)];
        *count = count.saturating_add(1);
    }

    fn total(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    /// A value that this share of all is not above.
    fn at_most(&self, share_bps: u16) -> u32 {
        let total = self.total();
        let wanted = (total * u64::from(share_bps)).div_ceil(10_000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return u32::try_from(Self::least(bucket + 1) - 1).unwrap_or(u32::MAX);
            }
        }
        0
    }

    /// A value that this share of all is not below.
    fn at_least(&self, share_bps: u16) -> u32 {
        let wanted = (self.total() * u64::from(share_bps)).div_ceil(10_000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate().rev() {
            seen += u64::from(*count);
            if seen >= wanted {
                return u32::try_from(Self::least(bucket)).unwrap_or(u32::MAX);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_bucket_whose_bounds_hold_it() {
        for value in (0..2_000).chain([u32::MAX / 3, u32::MAX - 1, u32::MAX]) {
            let bucket = Histogram::bucket(value);
            let (least, next) = (Histogram::least(bucket), Histogram::least(bucket + 1));
            assert!(least <= u64::from(value) && u64::from(value) < next, "{value} in {least}..{next}");
            assert!(next - least <= (least / 8).max(1), "an eighth at most");
        }
        assert_eq!(Histogram::bucket(u32::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_read_from_both_ends() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.at_most(9_500), histogram.at_least(9_500)), (0, 0));
        for value in 1..=100 {
            histogram.count(value * 1_000);
        }
        let (high, low) = (histogram.at_most(9_500), histogram.at_least(9_000));
        assert!((95_000..=95_000 * 9 / 8).contains(&high), "{high}");
        assert!((11_000 * 7 / 8..=11_000).contains(&low), "{low}");
    }

    #[test]
    fn a_share_is_judged_exactly_at_its_line() {
        let terms = SlaTerms { sample: 20, ..SlaTerms::default() };
        let quality =
            QualityTerms { ttft_ceiling_ms: 100, tokens_per_second_floor: 50, ..QualityTerms::default() };
        let mut window = Window::default();
        for nth in 0..20 {
            let ttft_us = if nth == 0 { 100_001 } else { 100_000 };
            let delivered = Delivered { ttft_us: Some(ttft_us), pace: Some((50, 1_000_000)), lied: false };
            assert_eq!(window.figures(&terms).broken, Broken::default(), "{nth} are too few to judge");
            window.deliver(&terms, &quality, Nanos(nth), &delivered);
        }
        window.check().unwrap();
        assert_eq!(window.figures(&terms).broken, Broken::default(), "1 of 20 is 5 %");
        let late = Delivered { ttft_us: Some(100_001), pace: Some((49, 1_000_000)), lied: true };
        window.deliver(&terms, &quality, Nanos(0), &late);
        let broken = window.figures(&terms).broken;
        assert_eq!(broken, Broken { ttft: true, ..Broken::default() }, "2 of 21, and 1 slow and 1 lie of 21");
        window.fail(&terms, Nanos(0), Fault::Overloaded);
        assert_eq!(window.figures(&terms).broken.count(), 1, "asking for patience is no error");
        window.fail(&terms, Nanos(terms.window.0 / 2), Fault::Cut);
        let broken = window.figures(&terms).broken;
        assert!(broken.errors && broken.uptime, "2 errors of 22, and 1 of 2 parts without service");
    }
}

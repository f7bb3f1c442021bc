//! Quantities carry their unit in the type, so a price can't be added to a quantity and a rounding is always named.
//!
//! | type     | unit                                   | arithmetic that is allowed                     |
//! |----------|----------------------------------------|------------------------------------------------|
//! | `Price`  | ticks per Unit                         | compare; `notional` with an instrument's tick   |
//! | `Qty`    | Units (1 Unit = 1,000,000 tokens)      | checked add and subtract; `tokens`              |
//! | `Tokens` | tokens                                 | checked add and subtract; `units_ceil`          |
//! | `Usd`    | nano-dollars, signed                   | checked add and subtract; `share` (cumulative)  |
//! | `Nanos`  | nanoseconds since 1970-01-01 UTC       | saturating add                                  |
//! | `Seq`    | position in the log, from 1            | `next`                                          |

use std::fmt;

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

/// Tokens in one Unit, for every instrument (contract §2.1).
pub const TOKENS_PER_UNIT: u64 = 1_000_000;
/// Nano-dollars in one US dollar.
pub const NANOS_PER_USD: i64 = 1_000_000_000;
/// Nanoseconds in one second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in one UTC day.
pub const DAY: u64 = 86_400 * SECOND;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, Archive, Freeze, Thaw,
        )]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// The sum, or `None` where it would not fit.
            #[must_use]
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) { Some(sum) => Some(Self(sum)), None => None }
            }

            /// The difference, or `None` where it would not fit.
            #[must_use]
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) { Some(rest) => Some(Self(rest)), None => None }
            }

            /// The sum; a fault where it does not fit, so call it only where an earlier check excluded that.
            #[must_use]
            #[track_caller]
            pub fn plus(self, other: Self) -> Self {
                self.checked_add(other).expect("a sum that an earlier check bounded fits")
            }

            /// The difference; a fault where it does not fit, so call it only where an earlier check excluded that.
            #[must_use]
            #[track_caller]
            pub fn minus(self, other: Self) -> Self {
                self.checked_sub(other).expect("a difference that an earlier check bounded fits")
            }

            /// True when there is nothing of it.
            #[must_use]
            pub const fn is_zero(self) -> bool { self.0 == 0 }
        }
    };
}

unit! {
    /// A price in ticks per Unit; what a tick is worth is the instrument's `tick`.
    Price(u64)
}
unit! {
    /// A quantity in whole Units of an instrument.
    Qty(u64)
}
unit! {
    /// A number of tokens, prompt and completion counted alike.
    Tokens(u64)
}
unit! {
    /// An amount in nano-dollars.
    Usd(i64)
}
unit! {
    /// A moment in UTC, or a span, in nanoseconds.
    Nanos(u64)
}
unit! {
    /// A position in the log. The first command has 1; 0 means before everything.
    Seq(u64)
}

impl Qty {
    /// The tokens in this many Units, or `None` above `u64::MAX`.
    #[must_use]
    pub const fn tokens(self) -> Option<Tokens> {
        match self.0.checked_mul(TOKENS_PER_UNIT) {
            Some(tokens) => Some(Tokens(tokens)),
            None => None,
        }
    }
}

impl Tokens {
    /// The fewest whole Units that hold this many tokens.
    #[must_use]
    pub const fn units_ceil(self) -> Qty {
        Qty(self.0.div_ceil(TOKENS_PER_UNIT))
    }
}

impl Usd {
    /// Whole dollars as an amount; for configuration and tests.
    #[must_use]
    pub const fn dollars(dollars: i64) -> Self {
        Self(dollars * NANOS_PER_USD)
    }

    /// The part of this amount that belongs to the first `taken` of `whole`, rounded down.
    ///
    /// Cumulative use keeps every nano-dollar: give out `share(taken_after) - share(taken_before)` and the
    /// parts always add up to the whole (design §2.11).
    #[must_use]
    pub fn share(self, taken: u64, whole: u64) -> Self {
        assert!(taken <= whole && whole > 0, "a share is a part of something");
        if taken == whole || self.is_zero() {
            return self;
        }
        // Dividing 128 bits takes several times as long as everything else here, so only where it must be.
        if let (Ok(part), Ok(of)) = (i64::try_from(taken), i64::try_from(whole))
            && let Some(product) = self.0.checked_mul(part)
        {
            return Self(product / of);
        }
        Self((i128::from(self.0) * i128::from(taken) / i128::from(whole)) as i64)
    }

    /// `bps` hundredths of a percent of this amount, rounded down; at most all of it.
    #[must_use]
    #[inline(always)]
    pub fn basis_points(self, bps: u16) -> Self {
        let bps = i64::from(bps);
        if let Some(product) = self.0.checked_mul(bps) {
            return Self(product / 10_000);
        }
        // Exact, and without dividing 128 bits: with v = 10,000 q + r, v b / 10,000 = q b + r b / 10,000.
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        Self(whole * bps + rest * bps / 10_000)
    }
}

/// Nano-dollars added up over the venue's whole life: too many for [`Usd`] one day, never for this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Freeze, Thaw)]
pub struct UsdTotal(pub i128);

impl UsdTotal {
    /// The total with one more amount in it.
    #[must_use]
    pub fn plus(self, amount: Usd) -> Self {
        Self(self.0 + i128::from(amount.0))
    }
}

impl fmt::Display for Usd {
    /// Decimal dollars without trailing zeros: `0.81`, `25`, `-1.000000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UsdTotal(self.0.into()).fmt(f)
    }
}

impl fmt::Display for UsdTotal {
    /// As [`Usd`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, part) = (nanos / NANOS_PER_USD as u128, nanos % NANOS_PER_USD as u128);
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{part:09}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Price {
    /// What `qty` Units cost at this price when a tick is worth `tick`, or `None` above `i64::MAX`.
    #[must_use]
    #[inline(always)]
    pub fn notional(self, qty: Qty, tick: Usd) -> Option<Usd> {
        // A tick is worth at least a nano-dollar, so ticks that don't fit 64 bits are too many dollars as well.
        let ticks = i64::try_from(self.0.checked_mul(qty.0)?).ok()?;
        ticks.checked_mul(tick.0).map(Usd)
    }
}

impl Nanos {
    /// This moment plus a span, never past the end of time.
    #[must_use]
    pub const fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The next UTC midnight strictly after this moment; DAY orders end there.
    #[must_use]
    pub const fn next_midnight(self) -> Self {
        Self((self.0 / DAY + 1) * DAY)
    }

    /// The next of the UTC hours 00, 04, 08, 12, 16, 20 strictly after this moment (contract §4.2).
    #[must_use]
    pub const fn next_sweep(self) -> Self {
        let period = DAY / 6;
        Self((self.0 / period + 1) * period)
    }

    /// The UTC month that this moment is in, counted from January 1970.
    #[must_use]
    pub const fn month(self) -> u32 {
        let (year, month) = civil_month(self.0 / DAY);
        year * 12 + month
    }

    /// The moment at which the next UTC month begins; the end of time where there is none.
    #[must_use]
    pub const fn next_month(self) -> Self {
        let month = self.month();
        let mut day = self.0 / DAY;
        // A month is over after 31 days at most.
        while Self(day * DAY).month() == month {
            day += 1;
            if day > u64::MAX / DAY {
                return Self(u64::MAX);
            }
        }
        Self(day * DAY)
    }
}

/// Years since 1970 and the month from 0 that a day, counted from 1970-01-01, lies in. Years are taken from March on,
/// so that the leap day is a year's last; 400 of them are 146,097 days.
const fn civil_month(day: u64) -> (u32, u32) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + (month < 2) as u64;
    ((year - 1970) as u32, month as u32)
}

impl Seq {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_given_out_cumulatively_add_up_to_the_whole() {
        let whole = Usd(810_000_001);
        let mut given = 0;
        let mut before = Usd::ZERO;
        for taken in [1, 2, 7, 333_333, 999_999, 1_000_000] {
            let upto = whole.share(taken, 1_000_000);
            given += upto.minus(before).0;
            before = upto;
        }
        assert_eq!(given, whole.0);
    }

    #[test]
    fn shares_and_fees_are_exact_where_64_bits_end() {
        let amounts = [0, 1, 9_999, 10_000, 10_001, 810_000_001, i64::MAX / 10_000, i64::MAX - 1, i64::MAX];
        for amount in amounts.into_iter().flat_map(|amount| [amount, -amount]) {
            for bps in [0_u16, 1, 7, 9_999, 10_000] {
                let exact = i128::from(amount) * i128::from(bps) / 10_000;
                assert_eq!(i128::from(Usd(amount).basis_points(bps).0), exact, "{amount} {bps}");
            }
            for whole in [1_u64, 3, 1_000_000, i64::MAX as u64, u64::MAX] {
                for taken in [0, 1, whole / 3, whole / 2, whole - 1, whole] {
                    let exact = i128::from(amount) * i128::from(taken) / i128::from(whole);
                    assert_eq!(
                        i128::from(Usd(amount).share(taken, whole).0),
                        exact,
                        "{amount} {taken} {whole}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_notional_that_does_not_fit_is_none() {
        assert_eq!(Price(3).notional(Qty(5), Usd(7)), Some(Usd(105)));
        assert_eq!(Price(u64::MAX).notional(Qty(2), Usd(1)), None);
        assert_eq!(Price(1 << 62).notional(Qty(1), Usd(2)), None);
        assert_eq!(Price(1 << 62).notional(Qty(2), Usd(1)), None);
        assert_eq!(Price(i64::MAX as u64).notional(Qty(1), Usd(1)), Some(Usd(i64::MAX)));
    }

    #[test]
    fn dollars_print_without_trailing_zeros() {
        let table =
            [(0, "0"), (810_000_000, "0.81"), (-1_000_000_001, "-1.000000001"), (25_000_000_000, "25")];
        for (nanos, text) in table {
            assert_eq!(Usd(nanos).to_string(), text);
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // Days of 1970-01-01, -01-31, -02-01, 1972-02-29, -03-01, 2000-02-29, 2026-11-21, -12-31, 2027-01-01, 2100-03-01.
        let table = [
            (0, 0, 31),
            (30, 0, 31),
            (31, 1, 59),
            (789, 25, 790),
            (790, 26, 821),
            (11_016, 361, 11_017),
            (20_778, 682, 20_788),
            (20_818, 683, 20_819),
            (20_819, 684, 20_850),
            (47_541, 1_562, 47_572),
        ];
        for (day, month, next) in table {
            assert_eq!(Nanos(day * DAY + DAY - 1).month(), month, "day {day}");
            assert_eq!(Nanos(day * DAY + 5).next_month(), Nanos(next * DAY), "day {day}");
        }
        assert!(Nanos(u64::MAX).next_month() == Nanos(u64::MAX));
    }

    #[test]
    fn sweeps_fall_on_six_utc_hours() {
        assert_eq!(Nanos(0).next_sweep(), Nanos(DAY / 6));
        assert_eq!(Nanos(DAY - 1).next_sweep(), Nanos(DAY));
        assert_eq!(Nanos(DAY).next_midnight(), Nanos(2 * DAY));
    }
}

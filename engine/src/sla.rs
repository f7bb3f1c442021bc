//! What a supplier promises of its service, what breaks the promise, and what that costs: the terms that the operator
//! sets per instrument, the ways in which a supplier fails a call, and what a benchmark provider says of a model.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::ids::{AccountId, Fingerprint, InstrumentId};
use crate::units::{Nanos, SECOND, Tokens, Usd};

/// What an instrument demands of those who deliver it, and what falling short costs them (design §4, SLA).
///
/// The ceiling of the time to first token and the floor of speed are the instrument's own
/// ([`crate::instrument::QualityTerms`]); these terms say how often they must be kept. Shares are in hundredths of a
/// percent. [`SlaTerms::NONE`] holds of an instrument for which nobody has set any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct SlaTerms {
    /// How long calls are added up before they are judged, from one multiple of it in UTC to the next. Zero measures
    /// nothing.
    pub window: Nanos,
    /// Fewer calls and faults than this in a window are not judged.
    pub sample: u32,
    /// This share of the calls must begin within the ceiling: 9,500 judges the 95th percentile. Zero doesn't judge it.
    pub ttft_percentile_bps: u16,
    /// This share of the calls must keep the floor of speed. Zero doesn't judge it.
    pub pace_percentile_bps: u16,
    /// At most this share of the calls may fail, or be reported with counts beyond belief.
    pub error_max_bps: u16,
    /// In at least this share of the parts of the window (a sixtieth each) in which it was asked it must have served.
    pub uptime_min_bps: u16,
    /// What a broken term costs: this share of what was paid for its deliveries in the window,
    pub penalty_bps: u16,
    /// and this.
    pub penalty: Usd,
    /// So many broken windows in a row take the supplier off the instrument's roster; zero never does.
    pub breaches_to_suspend: u8,
    /// So many passed probes in a row bring it back, and so many failed ones take it off; zero doesn't either.
    pub probes_to_decide: u8,
    /// Calls that begin later than the ceiling and its tolerance are not billed, and not paid (contract §4.3).
    pub late_is_free: bool,
    /// How far above the ceiling that starts.
    pub late_tolerance_bps: u16,
    /// Answers of at least so many tokens, sent slower than the floor less the same tolerance, are free as well; zero
    /// bills them.
    pub slow_is_free_from: Tokens,
    /// Collateral that a supplier must have behind each Unit that it owes.
    pub collateral_per_unit: Usd,
    /// What the consumer gets of the price of its tokens when another than their issuer had to deliver them.
    pub cover_penalty_bps: u16,
    /// A cover costs the issuer at most this share of the last trade's price: 20,000 is twice that price.
    pub cover_ceiling_bps: u32,
    /// A model serves only with a valid attestation at or above the instrument's score floor.
    pub attested: bool,
}

impl SlaTerms {
    /// Nothing is measured, everything delivered is billed, and nobody pays a penalty.
    pub const NONE: Self = Self {
        window: Nanos::ZERO,
        sample: 0,
        ttft_percentile_bps: 0,
        pace_percentile_bps: 0,
        error_max_bps: 10_000,
        uptime_min_bps: 0,
        penalty_bps: 0,
        penalty: Usd::ZERO,
        breaches_to_suspend: 0,
        probes_to_decide: 3,
        late_is_free: false,
        late_tolerance_bps: 0,
        slow_is_free_from: Tokens::ZERO,
        collateral_per_unit: Usd::ZERO,
        cover_penalty_bps: 0,
        cover_ceiling_bps: 20_000,
        attested: false,
    };

    /// Why they can't be kept, if they can't: a share is at most the whole.
    pub(crate) fn are_possible(&self) -> bool {
        let shares = [
            self.ttft_percentile_bps,
            self.pace_percentile_bps,
            self.error_max_bps,
            self.uptime_min_bps,
            self.penalty_bps,
            self.late_tolerance_bps,
            self.cover_penalty_bps,
        ];
        shares.iter().all(|share| *share <= 10_000)
            && self.penalty.0 >= 0
            && self.collateral_per_unit.0 >= 0
            && self.cover_ceiling_bps <= 1_000_000
            && (self.window.is_zero() || self.window.0 >= 60 * SECOND)
            && self.window.0 <= crate::units::DAY
    }
}

impl Default for SlaTerms {
    /// An hour; the 95th percentile of the first token and the 90th of speed; at most 5 % errors, at least 99 % uptime;
    /// a tenth of the hour's value for each broken term; off the roster after three broken hours; late calls are free.
    fn default() -> Self {
        Self {
            window: Nanos(3_600 * SECOND),
            sample: 20,
            ttft_percentile_bps: 9_500,
            pace_percentile_bps: 9_000,
            error_max_bps: 500,
            uptime_min_bps: 9_900,
            penalty_bps: 1_000,
            breaches_to_suspend: 3,
            late_is_free: true,
            late_tolerance_bps: 1_000,
            cover_penalty_bps: 1_000,
            ..Self::NONE
        }
    }
}

/// Whether a delivered call is free, and why (contract §4.3: late and out-of-spec delivery is not billed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
#[repr(u8)]
pub enum Waived {
    /// It is billed.
    #[default]
    No = 0,
    /// Its first token came after the instrument's ceiling.
    Late = 1,
    /// Its tokens came below the instrument's floor of speed.
    Slow = 2,
}

/// How a supplier failed a call.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Archive, Freeze, Thaw,
)]
#[repr(u8)]
pub enum Fault {
    /// It answered with an error of its own.
    Refused = 0,
    /// It asked for patience. That is no error, but no service either: it counts against uptime alone.
    Overloaded = 1,
    /// Nothing came within the time that is waited for the first token.
    Slow = 2,
    /// It fell silent in the middle of an answer.
    Stalled = 3,
    /// The connection ended in the middle of an answer.
    Cut = 4,
    /// What came is not what the protocol says.
    Malformed = 5,
    /// What it said of the tokens is beyond belief.
    Lied = 6,
    /// No connection could be made.
    Unreachable = 7,
}

impl Fault {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Overloaded,
        Self::Slow,
        Self::Stalled,
        Self::Cut,
        Self::Malformed,
        Self::Lied,
        Self::Unreachable,
    ];

    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::Lied => "lied",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What a benchmark provider says of a supplier's model, signed with a key of its account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Attestation {
    /// Whose model.
    pub supplier: AccountId,
    /// For which instrument.
    pub instrument: InstrumentId,
    /// The model's name at the supplier, as offered.
    pub model: String,
    /// Its value on the instrument's index.
    pub score: u32,
    /// It says nothing any more from this moment on.
    pub valid_until: Nanos,
    /// The key that signed.
    pub key: Fingerprint,
    /// Ed25519 over [`Attestation::statement`], 64 bytes.
    pub signature: Vec<u8>,
}

impl Attestation {
    /// The text that is signed, line by line; `symbol` and `index` are the instrument's. Whoever has the state can write
    /// it again and check the signature for himself.
    #[must_use]
    pub fn statement(&self, symbol: &str, index: &str) -> String {
        format!(
            "grid quality attestation 1\nsupplier {}\ninstrument {symbol}\nmodel {}\nindex {index}\nscore {}\n\
             valid until {}\n",
            self.supplier.0, self.model, self.score, self.valid_until.0
        )
    }

    /// Whether `public_key` signed the statement.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8; 32], symbol: &str, index: &str) -> bool {
        let key = ed25519_dalek::VerifyingKey::from_bytes(public_key);
        let signature = ed25519_dalek::Signature::from_slice(&self.signature);
        match (key, signature) {
            (Ok(key), Ok(signature)) => {
                key.verify_strict(self.statement(symbol, index).as_bytes(), &signature).is_ok()
            }
            _ => false,
        }
    }
}

//! The terms on which money comes in: what an account may do for free, and how it is charged when its dollars run low.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::units::Usd;

/// What the venue gives away, to whom, and how far (contract §4.1, §4.6). All zero, as at first: nothing is given and
/// nothing limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct AccountTerms {
    /// Calls per UTC day of an account that never paid anything in; 0 is no limit.
    pub free_calls_per_day: u32,
    /// Calls at once of an account that never paid anything in; 0 is no limit, for anybody.
    pub free_at_once: u32,
    /// Each time that an account has paid in so much, it may have one call more at once; zero: whoever has paid in
    /// anything has no limit. Credits don't count.
    pub paid_per_call_at_once: Usd,
    /// Given to an account once, when it signs up; zero is none.
    pub sign_up_credit: Usd,
    /// Units in consumption never go back to trading, not even untouched ones (contract §4.1, D4).
    pub one_way: bool,
}

/// An owner's Auto-Reload settings (contract §4.5, §5.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct AutoReload {
    /// Whether it is on.
    pub enabled: bool,
    /// Due when fewer dollars than this are available.
    pub threshold: Usd,
    /// So much is charged each time.
    pub amount: Usd,
    /// No more than this in one UTC month; `None` is no limit.
    pub monthly_limit: Option<Usd>,
}

/// What an account can be charged with at the payment provider: names that mean something there and nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct PaymentMethod {
    /// The account's owner there, at most 128 bytes.
    pub customer: String,
    /// The card or other means, at most 128 bytes.
    pub method: String,
}

/// Where a reload's money comes from. Decided when it falls due, so that whatever changes meanwhile, one is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum PaymentSource {
    /// The line of credit that the operator grants.
    House,
    /// The payment provider.
    Provider(PaymentMethod),
}

/// Why a reload came to nothing. Until the owner or the operator changes something, no other is begun.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw, thiserror::Error,
)]
pub enum ReloadFailure {
    /// The provider, or the bank behind it, said no; or there is neither a card nor a line of credit with room.
    #[error("declined")]
    Declined,
    /// The provider never said what became of it. Somebody has to look there before the account is charged again.
    #[error("unresolved")]
    Unresolved,
}

//! A reject is an ordinary "no". Numbers are for ever: a retired one is never used again.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

/// Why a command was refused. Declared in the order in which the checks run, whatever the command; a test walks it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Archive,
    Freeze,
    Thaw,
    thiserror::Error,
)]
#[repr(u16)]
pub enum Reject {
    /// The session is not one that the venue knows.
    #[error("unknown session")]
    UnknownSession = 1,
    /// The session's account may not do this, or not for this account.
    #[error("not permitted")]
    NotPermitted = 2,
    /// No such account.
    #[error("unknown account")]
    UnknownAccount = 3,
    /// The key is unknown, revoked or expired.
    #[error("unknown or revoked key")]
    UnknownKey = 4,
    /// The key is registered already.
    #[error("key is registered already")]
    DuplicateKey = 5,
    /// The account is in Auto Mode, where the venue trades for it (contract §3.23).
    #[error("auto mode trading restricted")]
    AutoModeTradingRestricted = 6,
    /// No open order of this account has that id or label.
    #[error("unknown order")]
    UnknownOrder = 21,
    /// No such reservation, or settled, released or lapsed already.
    #[error("unknown reservation")]
    UnknownReservation = 40,
    /// No such reload of this account is under way.
    #[error("unknown reload")]
    UnknownReload = 74,
    /// No such instrument.
    #[error("unknown instrument")]
    UnknownInstrument = 10,
    /// The instrument takes no orders now.
    #[error("instrument is not open for trading")]
    InstrumentNotLive = 11,
    /// Zero, off the lot grid, or outside the instrument's minimum and maximum.
    #[error("invalid quantity")]
    InvalidQuantity = 12,
    /// Zero or above the instrument's maximum.
    #[error("invalid price")]
    InvalidPrice = 13,
    /// The account is not a supplier.
    #[error("not a supplier")]
    NotASupplier = 50,
    /// The value does not fit, so the command could not be carried out whole.
    #[error("amount out of range")]
    OutOfRange = 14,
    /// A text is too long or has characters that are not allowed.
    #[error("invalid text")]
    InvalidText = 15,
    /// The signature is not one of the statement by an active key of the account.
    #[error("bad signature")]
    BadSignature = 7,
    /// The account has an open order with this label, or used this client order id before.
    #[error("duplicate client order id")]
    DuplicateLabel = 20,
    /// The request handle is reserved already.
    #[error("duplicate request")]
    DuplicateRequest = 41,
    /// A post-only order that would have traded.
    #[error("post-only order would trade")]
    WouldTrade = 22,
    /// Quote protection has pulled the session's quotes, and has not been set since.
    #[error("quotes were pulled by quote protection")]
    QuotesPulled = 24,
    /// Too many open orders on the account.
    #[error("too many open orders")]
    TooManyOrders = 23,
    /// A limit of the venue is reached: sessions, keys, accounts, instruments, reservations.
    #[error("limit reached")]
    LimitReached = 60,
    /// The account has had its sign-up credit.
    #[error("credited already")]
    AlreadyCredited = 75,
    /// The account never paid anything in, and today's free calls are used up (contract §4.6).
    #[error("the free calls of today are used up")]
    FreeTierSpent = 70,
    /// As many calls of the account are in progress as what it paid in allows (contract §4.6).
    #[error("too many calls at once")]
    TooManyAtOnce = 71,
    /// Fewer tokens free in consumption than asked for, and Auto Mode is off.
    #[error("insufficient tokens")]
    InsufficientTokens = 32,
    /// Auto Mode had to buy, and nobody sells within the account's limits.
    #[error("no supply within the price limit")]
    NoSupply = 33,
    /// Fewer dollars available than the order would hold, or than the withdrawal takes.
    #[error("insufficient funds")]
    InsufficientFunds = 30,
    /// Fewer dollars available than Auto Mode needs, and a reload is under way: try again shortly.
    #[error("balance is being replenished")]
    Replenishing = 72,
    /// Fewer dollars available than Auto Mode needs, and the last reload failed.
    #[error("the payment was declined")]
    PaymentDeclined = 73,
    /// Fewer Units available than the order or transfer needs.
    #[error("insufficient units")]
    InsufficientUnits = 31,
    /// More Units than the operator granted capacity for.
    #[error("beyond capacity")]
    BeyondCapacity = 51,
    /// More Units than the supplier's collateral covers.
    #[error("beyond collateral")]
    BeyondCollateral = 52,
    /// The supplier is off the roster of the instrument.
    #[error("suspended")]
    Suspended = 53,
}

impl Reject {
    /// Every reject, in the order of declaration.
    pub const ALL: [Self; 35] = [
        Self::UnknownSession,
        Self::NotPermitted,
        Self::UnknownAccount,
        Self::UnknownKey,
        Self::DuplicateKey,
        Self::AutoModeTradingRestricted,
        Self::UnknownOrder,
        Self::UnknownReservation,
        Self::UnknownReload,
        Self::UnknownInstrument,
        Self::InstrumentNotLive,
        Self::InvalidQuantity,
        Self::InvalidPrice,
        Self::NotASupplier,
        Self::OutOfRange,
        Self::InvalidText,
        Self::BadSignature,
        Self::DuplicateLabel,
        Self::DuplicateRequest,
        Self::WouldTrade,
        Self::QuotesPulled,
        Self::TooManyOrders,
        Self::LimitReached,
        Self::AlreadyCredited,
        Self::FreeTierSpent,
        Self::TooManyAtOnce,
        Self::InsufficientTokens,
        Self::NoSupply,
        Self::InsufficientFunds,
        Self::Replenishing,
        Self::PaymentDeclined,
        Self::InsufficientUnits,
        Self::BeyondCapacity,
        Self::BeyondCollateral,
        Self::Suspended,
    ];

    /// The reject with this number on the wire.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reject| reject.code() == code)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_its_reject() {
        for reject in Reject::ALL {
            assert_eq!(Reject::from_code(reject.code()), Some(reject));
        }
        let numbers: std::collections::BTreeSet<u16> = Reject::ALL.map(Reject::code).into();
        assert_eq!(numbers.len(), Reject::ALL.len());
        assert_eq!(Reject::from_code(0), None);
    }
}

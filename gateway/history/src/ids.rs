//! Public ids: a prefix that says what is named, and a UUID that says which (contract §5.2).
//!
//! The engine numbers things densely; a number that anyone can count from would tell how busy the venue is. So the
//! number is mixed by a fixed permutation and followed by check bits. The mapping is the same in every tier and needs no
//! table; [`decode`] takes back every form that clients send: underscore or hyphen, either case.
//! It hides nothing from someone who reads this file. What may be seen is decided by ownership, not by ids.

use grid_engine::{AccountId, Fingerprint, InstrumentId, KeyHash, LotId, OrderId, TradeId};

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The market of an instrument; same number as the instrument.
    Market = 1,
    /// An instrument.
    Instrument = 2,
    /// An order.
    Order = 3,
    /// A trade.
    Trade = 4,
    /// An account's owner.
    User = 5,
    /// A movement of Units between balances.
    Transfer = 6,
    /// Units of one account and instrument in trading.
    TradingAccount = 7,
    /// Dollars of one account.
    CurrencyTradingAccount = 8,
    /// Tokens of one account and instrument in consumption.
    ConsumptionAccount = 9,
    /// Units of one supplier and instrument not yet in trading.
    IssuanceAccount = 10,
    /// One issuance.
    SupplyIssuance = 11,
    /// A batch of tokens.
    Lot = 12,
    /// A consumption key.
    ApiKey = 13,
    /// A signing key.
    SigningKey = 14,
    /// What an account holds of an instrument, as a position.
    Position = 15,
    /// One side of what a supplier had to pay.
    Charge = 16,
}

/// The number that stands for US dollars among instruments, far above any that the engine gives out.
pub const USD: InstrumentId = InstrumentId(u16::MAX);

impl Kind {
    /// What stands before the UUID.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Instrument => "instrument",
            Self::Order => "order",
            Self::Trade => "trade",
            Self::User => "user",
            Self::Transfer => "transfer",
            Self::TradingAccount => "trading_account",
            Self::CurrencyTradingAccount => "currency_trading_account",
            Self::ConsumptionAccount => "consumption_account",
            Self::IssuanceAccount => "isa",
            Self::SupplyIssuance => "supply_issuance",
            Self::Lot => "lot",
            Self::ApiKey => "key",
            Self::SigningKey => "signing_key",
            Self::Position => "position",
            Self::Charge => "charge",
        }
    }
}

/// The permutation's odd multiplier (2^64 over the golden ratio) and its inverse modulo 2^64.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
const GATHER: u64 = 0xF1DE_83E1_9937_733D;
const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1, "the multipliers are inverse");

/// A permutation of all u64, another one per kind.
const fn mix(kind: Kind, number: u64) -> u64 {
    let mut word = number ^ (kind as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    word = word.wrapping_mul(SPREAD);
    word ^= word >> 32;
    word = word.wrapping_mul(SPREAD);
    word ^ (word >> 32)
}

/// The inverse of [`mix`].
const fn unmix(kind: Kind, word: u64) -> u64 {
    let mut number = word ^ (word >> 32);
    number = number.wrapping_mul(GATHER);
    number ^= number >> 32;
    number = number.wrapping_mul(GATHER);
    number ^ (kind as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// 58 check bits: a mistyped or made-up UUID names nothing.
const fn check(kind: Kind, number: u64) -> u64 {
    mix(kind, mix(kind, number) ^ 0x5851_F42D_4C95_7F2D) & ((1 << 58) - 1)
}

/// The UUID of a number, version 8 (custom) as RFC 9562 calls it.
fn uuid(kind: Kind, number: u64) -> u128 {
    let payload = (u128::from(mix(kind, number)) << 58) | u128::from(check(kind, number)); // 122 bits
    let high48 = payload >> 74;
    let mid12 = (payload >> 62) & 0xFFF;
    let low62 = payload & ((1 << 62) - 1);
    (high48 << 80) | (8 << 76) | (mid12 << 64) | (0b10 << 62) | low62
}

/// The public id of a number.
#[must_use]
pub fn encode(kind: Kind, number: u64) -> String {
    let uuid = uuid(kind, number);
    format!(
        "{}_{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        kind.prefix(),
        uuid >> 96,
        (uuid >> 80) & 0xFFFF,
        (uuid >> 64) & 0xFFFF,
        (uuid >> 48) & 0xFFFF,
        uuid & 0xFFFF_FFFF_FFFF
    )
}

/// The number of a public id, or `None` where it is not one of this kind.
#[must_use]
pub fn decode(kind: Kind, text: &str) -> Option<u64> {
    if !text.is_ascii() || text.len() != kind.prefix().len() + 1 + 36 {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let (prefix, rest) = text.split_at(kind.prefix().len());
    let (separator, hex) = rest.split_at(1);
    if prefix.replace('-', "_") != kind.prefix() || !matches!(separator, "_" | "-") {
        return None;
    }
    let mut value = 0u128;
    for (at, byte) in hex.bytes().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, byte) => value = (value << 4) | u128::from(char::from(byte).to_digit(16)?),
        }
    }
    let payload = ((value >> 80) << 74) | (((value >> 64) & 0xFFF) << 62) | (value & ((1 << 62) - 1));
    let number = unmix(kind, (payload >> 58) as u64);
    (uuid(kind, number) == value).then_some(number)
}

const fn pair(account: AccountId, instrument: InstrumentId) -> u64 {
    ((account.0 as u64) << 16) | instrument.0 as u64
}

/// Reads back an id made of an account and an instrument.
#[must_use]
pub fn decode_pair(kind: Kind, text: &str) -> Option<(AccountId, InstrumentId)> {
    let number = decode(kind, text)?;
    let account = u32::try_from(number >> 16).ok()?;
    Some((AccountId(account), InstrumentId(number as u16)))
}

/// An id made of an account and an instrument: trading, consumption and issuance accounts, positions.
#[must_use]
pub fn encode_pair(kind: Kind, account: AccountId, instrument: InstrumentId) -> String {
    encode(kind, pair(account, instrument))
}

/// `market_...`
#[must_use]
pub fn market(id: InstrumentId) -> String {
    encode(Kind::Market, id.0.into())
}

/// `instrument_...`
#[must_use]
pub fn instrument(id: InstrumentId) -> String {
    encode(Kind::Instrument, id.0.into())
}

/// `order_...`
#[must_use]
pub fn order(id: OrderId) -> String {
    encode(Kind::Order, id.0)
}

/// `trade_...`
#[must_use]
pub fn trade(id: TradeId) -> String {
    encode(Kind::Trade, id.0)
}

/// `user_...`
#[must_use]
pub fn user(id: AccountId) -> String {
    encode(Kind::User, id.0.into())
}

/// `transfer_...`
#[must_use]
pub fn transfer(number: u64) -> String {
    encode(Kind::Transfer, number)
}

/// `lot_...`
#[must_use]
pub fn lot(id: LotId) -> String {
    encode(Kind::Lot, id.0)
}

/// `trading_account_...`; for [`USD`] the currency account.
#[must_use]
pub fn trading_account(account: AccountId, instrument: InstrumentId) -> String {
    if instrument == USD {
        return encode(Kind::CurrencyTradingAccount, account.0.into());
    }
    encode_pair(Kind::TradingAccount, account, instrument)
}

/// `key_...`, from the first 64 bits of the key's hash.
#[must_use]
pub fn api_key(hash: &KeyHash) -> String {
    encode(Kind::ApiKey, head(&hash.0))
}

/// `signing_key_...`, from the first 64 bits of the fingerprint.
#[must_use]
pub fn signing_key(fingerprint: &Fingerprint) -> String {
    encode(Kind::SigningKey, head(&fingerprint.0))
}

/// The first 64 bits of a hash, as ids of keys carry them.
#[must_use]
pub fn head(hash: &[u8; 32]) -> u64 {
    let (head, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_be_bytes(*head)
}

/// The instrument that a market id names.
#[must_use]
pub fn decode_market(text: &str) -> Option<InstrumentId> {
    decode(Kind::Market, text).and_then(|number| u16::try_from(number).ok()).map(InstrumentId)
}

/// The instrument that an instrument id names.
#[must_use]
pub fn decode_instrument(text: &str) -> Option<InstrumentId> {
    decode(Kind::Instrument, text).and_then(|number| u16::try_from(number).ok()).map(InstrumentId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_from_its_id() {
        for kind in [Kind::Market, Kind::Order, Kind::CurrencyTradingAccount, Kind::Position] {
            for number in [0, 1, 2, 255, 65_535, 1 << 32, u64::MAX - 1, u64::MAX] {
                assert_eq!(decode(kind, &encode(kind, number)), Some(number), "{kind:?} {number}");
            }
        }
    }

    #[test]
    fn every_spelling_that_clients_send_is_read() {
        let id = encode(Kind::TradingAccount, 77);
        let uuid = id.strip_prefix("trading_account_").expect("the prefix is documented");
        for text in [
            format!("trading_account-{uuid}"),
            format!("trading-account-{uuid}"),
            format!("TRADING_ACCOUNT_{}", uuid.to_uppercase()),
        ] {
            assert_eq!(decode(Kind::TradingAccount, &text), Some(77), "{text}");
        }
    }

    #[test]
    fn another_kind_a_typo_or_garbage_names_nothing() {
        let id = encode(Kind::Order, 5);
        assert_eq!(decode(Kind::Trade, &id), None);
        assert_eq!(decode(Kind::Trade, &id.replace("order", "trade")), None);
        let last = if id.ends_with('0') { "1" } else { "0" };
        assert_eq!(decode(Kind::Order, &format!("{}{last}", &id[..id.len() - 1])), None);
        for text in [
            "",
            "order",
            "order_",
            "order_xyz",
            "ördér_00000000-0000-0000-0000-000000000000",
            "order_ünïcödé",
        ] {
            assert_eq!(decode(Kind::Order, text), None, "{text}");
        }
    }

    #[test]
    fn ids_have_the_shape_of_a_uuid() {
        let id = encode(Kind::Market, 3);
        let uuid = id.strip_prefix("market_").expect("the prefix is documented");
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "8");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"));
    }
}

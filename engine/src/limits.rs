//! Every bound of the engine, in one place. Reaching one is a reject, never a fault (design §2.9).

use crate::units::{DAY, NANOS_PER_USD, Nanos, SECOND, Usd};

/// Accounts on the venue.
pub const ACCOUNTS: usize = 1_000_000;
/// Instruments on the venue.
pub const INSTRUMENTS: usize = 16_384;
/// Open orders of one account.
pub const OPEN_ORDERS: usize = 250_000;
/// Tranches of one holding, and beyond them one or two of each further issuer.
pub const TRANCHES: usize = 1_024;
/// Lots of one holding, and beyond them one or two of each further issuer.
pub const LOTS: usize = 1_024;
/// Keys on the venue, signing and consumption keys each.
pub const KEYS: usize = 4_000_000;
/// Sessions on the venue.
pub const SESSIONS: usize = 16_384;
/// Open reservations on the venue.
pub const RESERVATIONS: usize = 1_000_000;
/// How long a disconnected session is kept. After that its numbers are forgotten and a client negotiates anew, so a
/// client must not resend what it left unanswered longer ago than this.
pub const SESSION_KEPT: Nanos = Nanos(7 * DAY);
/// Entries of one mass quote.
pub const QUOTE_ENTRIES: usize = 64;
/// Quotes of a session on one instrument: as many as an order's record can tell apart.
pub const QUOTE_NUMBERS: u8 = 63;
/// Quotes of a session on all instruments together.
pub const QUOTES: usize = 4_096;
/// Reports kept per session for resends and retransmissions.
pub const REPORTS_KEPT: usize = 8_192;
/// Client order ids kept per account, so that a repeat can't create a second order.
pub const TAGS_KEPT: usize = 16_384;
/// Longest life of a reservation.
pub const RESERVATION_LIFE: Nanos = Nanos(3_600 * SECOND);
/// Longest grace of cancel-on-disconnect.
pub const DISCONNECT_GRACE: Nanos = Nanos(3_600 * SECOND);
/// Longest name, label or tag, in bytes.
pub const TEXT: usize = 64;
/// Highest fee in hundredths of a percent.
pub const FEE_BPS: u16 = 1_000;
/// Smallest reload: what card networks can be asked for.
pub const RELOAD_MIN: Usd = Usd(NANOS_PER_USD / 2);
/// Largest reload.
pub const RELOAD_MAX: Usd = Usd(100_000 * NANOS_PER_USD);
/// Who owes whom, on the whole venue; beyond it what can't be paid is owed to the venue.
pub const DEBTS: usize = 100_000;
/// Attestations on the venue.
pub const ATTESTATIONS: usize = 100_000;
/// All dollars on the venue together. Since no account can hold more than all, no balance can overflow.
pub const ALL_USD: Usd = Usd(i64::MAX / 2);
/// All tokens of one instrument together, for the same reason.
pub const ALL_TOKENS: u64 = u64::MAX / 4;

const _: () = assert!(
    ALL_TOKENS / crate::units::TOKENS_PER_UNIT > crate::book::WIDEST,
    "any order's tokens can be counted"
);

//! Everything that can change the venue, as plain data.
//!
//! An [`Entry`] is what the log holds. Its log form is postcard: variants and fields are append-only, so a journal
//! written by an older build stays readable; what must change becomes a new variant.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::funding::{AccountTerms, AutoReload, PaymentMethod, ReloadFailure};
use crate::ids::{
    AccountId, Fingerprint, InstrumentId, KeyHash, KeyId, Label, OrderId, ReservationId, SessionId,
};
use crate::instrument::{InstrumentSpec, InstrumentStatus};
use crate::log_form::{self, hot};
use crate::sla::{Attestation, Fault, SlaTerms};
use crate::units::{Nanos, Price, Qty, Tokens, Usd};

// Every command is moved from stage to stage.
const _: () = assert!(size_of::<Entry>() <= 128);

/// One command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The session that it came through.
    pub session: SessionId,
    /// Its number in that session, strictly increasing, from 1; 0 only from the venue's own session.
    pub client_seq: u64,
    /// The account that it acts on. The session's own account, unless that one is a tier or the operator.
    pub account: AccountId,
    /// What to do.
    pub command: Command,
}

impl Entry {
    /// A command of the venue itself: timers, session events, the first commands of an empty log.
    #[must_use]
    pub const fn venue(command: Command) -> Self {
        Self { session: SessionId::VENUE, client_seq: 0, account: AccountId::VENUE, command }
    }

    /// Appends the log form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if !hot::append(self, out) {
            log_form::append(self, out);
        }
    }

    /// Reads the log form. Errors where the bytes are not one whole entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if let Some(entry) = hot::read(bytes) {
            return Ok(entry);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((entry, [])) => Ok(entry),
            Ok((_, rest)) => Err(DecodeError::TrailingBytes { count: rest.len() }),
            Err(error) => Err(DecodeError::Malformed { reason: error.to_string() }),
        }
    }
}

impl Command {
    /// Appends the log form of the command alone, as directory requests carry it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        log_form::append(self, out);
    }

    /// Reads the log form of a command alone.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match postcard::take_from_bytes(bytes) {
            Ok((command, [])) => Ok(command),
            Ok((_, rest)) => Err(DecodeError::TrailingBytes { count: rest.len() }),
            Err(error) => Err(DecodeError::Malformed { reason: error.to_string() }),
        }
    }
}

/// Why bytes are not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early or name an unknown variant.
    #[error("not a command's log form: {reason}")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// A whole command, and then more.
    #[error("{count} bytes follow the command")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

/// What can be asked of the venue. Who may: see [`crate::reject::Reject::NotPermitted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    // -- the book ---------------------------------------------------------------------------------------------
    /// Enter an order.
    Place(NewOrder),
    /// Take an open order out of the book.
    Cancel {
        /// Which.
        order: OrderRef,
    },
    /// Change an open order, atomically. A smaller quantity at the same price keeps its place in the queue;
    /// any other change gives it up, and a price that crosses trades.
    Replace {
        /// Which.
        order: OrderRef,
        /// New open quantity; zero cancels.
        qty: Qty,
        /// New limit price.
        price: Price,
        /// Self-trade prevention while the changed order is incoming.
        stp: SelfTrade,
        /// Refuse the change if it would trade.
        post_only: bool,
    },
    /// Take every open order of the account that matches out of the book.
    MassCancel(MassCancelScope),

    // -- delivery ---------------------------------------------------------------------------------------------
    /// Move Units between trading and consumption.
    Transfer {
        /// Of which instrument.
        instrument: InstrumentId,
        /// How many.
        qty: Qty,
        /// Which way.
        direction: TransferDirection,
    },
    /// Set tokens aside for one inference call; in Auto Mode buys what is missing, in this same command.
    Reserve {
        /// Of which instrument.
        instrument: InstrumentId,
        /// Upper bound of what the call may use.
        tokens: Tokens,
        /// The call's public handle, unique per account.
        #[serde(with = "crate::log_form::wide")]
        request: u128,
        /// How long, in log time, until the reservation lapses by itself.
        valid_for: Nanos,
        /// The consumption key that the call came with, of the same account.
        key: KeyId,
        /// Where the call came in.
        surface: Surface,
    },
    /// Turn a reservation into a usage record and give the rest back.
    Settle {
        /// Which reservation.
        reservation: ReservationId,
        /// What was delivered.
        usage: Usage,
    },
    /// Give a whole reservation back: the call failed or was out of specification, and is not billed.
    Release {
        /// Which reservation.
        reservation: ReservationId,
        /// The supplier that failed, or the venue where none was reached.
        supplier: AccountId,
    },

    // -- supply -----------------------------------------------------------------------------------------------
    /// Issue Units against the capacity that the operator granted; they enter the issuance balance.
    Issue {
        /// Of which instrument.
        instrument: InstrumentId,
        /// How many.
        qty: Qty,
    },
    /// Move issued Units to the issuer's trading balance, from where they can be sold.
    TransferIssuance {
        /// Of which instrument.
        instrument: InstrumentId,
        /// How many.
        qty: Qty,
    },

    // -- the account's own directory --------------------------------------------------------------------------
    /// Switch between Auto (`easy`) and Advanced Mode.
    SetMode {
        /// The mode from now on.
        mode: AccountMode,
    },
    /// Register an Ed25519 key.
    AddSigningKey {
        /// The 32 public bytes.
        public_key: [u8; 32],
        /// The owner's name for it, at most 64 bytes.
        label: String,
    },
    /// Revoke an Ed25519 key.
    RevokeSigningKey {
        /// Which.
        fingerprint: Fingerprint,
    },
    /// Register a consumption key.
    AddConsumptionKey {
        /// SHA-256 of the secret.
        hash: KeyHash,
        /// The first 8 characters, to recognise it by.
        prefix: String,
        /// The owner's name for it, at most 64 bytes.
        name: String,
        /// When it stops working, if ever.
        expires_at: Option<Nanos>,
    },
    /// Revoke a consumption key.
    RevokeConsumptionKey {
        /// Which.
        hash: KeyHash,
    },

    // -- the operator's ---------------------------------------------------------------------------------------
    /// Open an account; the answer carries its id.
    OpenAccount {
        /// Shown to its owner, at most 64 bytes.
        name: String,
        /// Auto or Advanced.
        mode: AccountMode,
        /// What it may do beyond trading and consuming.
        capabilities: Capabilities,
    },
    /// Mint dollars into the account: money has arrived.
    Deposit {
        /// How much.
        amount: Usd,
    },
    /// Burn dollars from the account: money has left.
    Withdraw {
        /// How much.
        amount: Usd,
    },
    /// How the account buys in Auto Mode.
    SetAutoBuy(AutoBuy),
    /// Add an instrument, or change the specification of the one with this symbol.
    DefineInstrument(Box<InstrumentSpec>),
    /// Open, halt or retire an instrument.
    SetInstrumentStatus {
        /// Which.
        instrument: InstrumentId,
        /// From now on.
        status: InstrumentStatus,
    },
    /// Make the account a supplier, or change what the venue knows of it.
    RegisterSupplier(Box<SupplierProfile>),
    /// How many undelivered Units of an instrument the supplier may have outstanding.
    SetCapacity {
        /// Of which instrument.
        instrument: InstrumentId,
        /// At most this many Units issued and neither delivered nor expired.
        capacity: Qty,
    },

    // -- the venue's own session only -------------------------------------------------------------------------
    /// The first command of every log: the operator's account with its key.
    Genesis {
        /// The operator's public key.
        operator_key: [u8; 32],
    },
    /// A client negotiated a session with a key of its account.
    OpenSession {
        /// The session.
        session: SessionId,
        /// The key that signed.
        key: Fingerprint,
    },
    /// A connection took the session over.
    Establish {
        /// The session.
        session: SessionId,
        /// The key that signed.
        key: Fingerprint,
        /// What to do with open orders when the connection is lost: `None` leaves them, a span cancels them
        /// when nobody has re-established within it.
        cancel_on_disconnect: Option<Nanos>,
        /// The gateway's own number for the connection, echoed in the event.
        connection: u64,
    },
    /// The session's connection is gone.
    SessionLost {
        /// The session.
        session: SessionId,
        /// The connection that ended; an older one than the current is ignored.
        connection: u64,
    },
    /// Time has passed and something is due.
    Tick,

    // -- money ------------------------------------------------------------------------------------------------
    /// The operator's: what accounts are given and how many calls they may make for nothing.
    SetAccountTerms(AccountTerms),
    /// The operator's: mint dollars into the account that nobody paid in. As long as it has only those, it is on the
    /// free tier.
    Credit {
        /// How much.
        amount: Usd,
    },
    /// The operator's: the credit of the terms, once per account.
    SignUpCredit,
    /// The owner's settings of Auto-Reload.
    SetAutoReload(AutoReload),
    /// The operator's: what the account is charged with from now on.
    SetPaymentMethod(Option<Box<PaymentMethod>>),
    /// The operator's: how much reloads may lend the account while it has nothing that can be charged.
    SetCreditLine {
        /// All together.
        limit: Usd,
    },
    /// The operator's: the account has paid back what it was lent.
    RepayCredit {
        /// How much.
        amount: Usd,
    },
    /// The operator's: the payment of a reload has arrived; mints it.
    ReloadPaid {
        /// Which reload.
        reload: u64,
        /// How much arrived: no more than was asked for.
        amount: Usd,
    },
    /// The operator's: a reload came to nothing, and no other is begun until something changes.
    ReloadFailed {
        /// Which reload.
        reload: u64,
        /// Why.
        reason: ReloadFailure,
    },
    // -- service (the operator's, the tiers' and the benchmark providers') ------------------------------------
    /// Set an instrument's terms of service. The windows that are open are not judged; measuring begins anew.
    SetSlaTerms {
        /// Of which instrument.
        instrument: InstrumentId,
        /// From now on.
        terms: Box<SlaTerms>,
    },
    /// An attempt at a supplier failed. One for each attempt, whatever becomes of the call.
    ReportFault {
        /// Of which instrument.
        instrument: InstrumentId,
        /// Who failed.
        supplier: AccountId,
        /// How.
        fault: Fault,
    },
    /// A conformance probe was made of a supplier.
    ReportProbe {
        /// For which instrument.
        instrument: InstrumentId,
        /// Of whom.
        supplier: AccountId,
        /// Everything that was asked was served as it should.
        passed: bool,
    },
    /// Hold so much of the supplier's dollars as collateral, in place of what is held of them now.
    SetCollateral {
        /// For which instrument.
        instrument: InstrumentId,
        /// How much.
        amount: Usd,
    },
    /// Name the account the fallback supplier of an instrument. A capacity of zero ends that.
    SetManaged {
        /// Of which instrument.
        instrument: InstrumentId,
        /// At which price it sells.
        price: Price,
        /// It sells no more than leaves it owing so many Units.
        capacity: Qty,
    },
    /// Let the account attest the quality of models, or no longer.
    SetBenchmark {
        /// From now on.
        allowed: bool,
    },
    /// State the quality of a supplier's model. The account is a benchmark provider, and a key of it has signed.
    Attest(Box<Attestation>),

    // -- quotes (of the account's own session only) -----------------------------------------------------------
    /// Put quotes where they are wanted now: each entry says what one quote is to be, and what stands of it
    /// already is moved, changed or withdrawn. Sides that move away from the other side go first, so that quotes which
    /// don't cross each other never meet on their way. Each side is done or refused for itself, and where one is refused
    /// nothing of it stands any more.
    MassQuote {
        /// In ascending order of instrument and number, none twice; at most [`QUOTE_ENTRIES`](crate::limits::QUOTE_ENTRIES).
        entries: Box<[QuoteEntry]>,
        /// What happens when a quote meets an order of the same account.
        stp: SelfTrade,
        /// Refuse each side that would trade.
        post_only: bool,
    },
    /// Have the session's quotes pulled when too much of them is filled at once, or `None`: never. Sets the counts back, and
    /// lets the session quote again after they were pulled.
    SetQuoteProtection(Option<QuoteProtection>),
}

/// A pair of orders that a maker moves together: what each is to be from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteEntry {
    /// Where.
    pub instrument: InstrumentId,
    /// The maker's own number for it, from 1 to [`QUOTE_NUMBERS`](crate::limits::QUOTE_NUMBERS); a number of its own in each
    /// instrument and session.
    pub quote: u8,
    /// What to buy.
    pub bid: QuoteSide,
    /// What to sell.
    pub ask: QuoteSide,
}

/// One side of a quote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteSide {
    /// The limit.
    pub price: Price,
    /// How many Units are to be open; zero for none.
    pub qty: Qty,
}

/// How much of a session's quotes may be filled within how long. Whichever is reached first has them pulled, all of them,
/// once the order that reached it has been matched to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct QuoteProtection {
    /// Counted from the first fill; the next one after that begins anew.
    pub window: Nanos,
    /// So many fills; zero for any number.
    pub fills: u32,
    /// So many Units; zero for any number.
    pub qty: Qty,
}

/// A new order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOrder {
    /// Where.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Limit or market, and how long it lives.
    pub kind: OrderKind,
    /// How many Units.
    pub qty: Qty,
    /// What happens when it meets an order of the same account.
    pub stp: SelfTrade,
    /// The client's label, unique among the account's open orders; 0 is none.
    pub label: Label,
    /// The client's own order id as text, at most 64 bytes, or empty. With one, the label (its hash) is never
    /// used a second time, open or not, so that a repeated request can't create a second order.
    pub tag: String,
    /// Move bought Units to consumption at once, whatever the mode says.
    pub to_consumption: bool,
}

/// Buy or sell.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Archive, Freeze, Thaw,
)]
pub enum Side {
    /// A bid.
    Buy,
    /// An ask.
    Sell,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// Limit or market, and how long it lives (contract §3.4 to 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// At this price or better.
    Limit {
        /// The limit.
        price: Price,
        /// How long the remainder lives.
        tif: TimeInForce,
    },
    /// At the book's prices, never resting.
    Market {
        /// No worse than this many basis points from the best opposite price at entry.
        max_slippage_bps: Option<u16>,
        /// All or nothing.
        fill_or_kill: bool,
    },
}

/// How long the remainder of a limit order lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum TimeInForce {
    /// Until filled or cancelled.
    Gtc,
    /// Fills what it can at once; the remainder is closed.
    Ioc,
    /// Fills whole at once or not at all.
    Fok,
    /// Until the next UTC midnight.
    Day,
    /// Until filled or cancelled, and refused if it would trade on entry.
    PostOnly,
}

impl TimeInForce {
    /// Whether a remainder goes into the book.
    #[must_use]
    pub const fn may_rest(self) -> bool {
        matches!(self, Self::Gtc | Self::Day | Self::PostOnly)
    }
}

/// What happens when an incoming order meets a resting order of the same account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum SelfTrade {
    /// They trade.
    #[default]
    Allow,
    /// The remainder of the incoming order is cancelled.
    CancelIncoming,
    /// The resting order is cancelled and matching goes on.
    CancelResting,
    /// Both are cancelled.
    CancelBoth,
    /// Both lose the smaller of the two quantities; what is left goes on.
    Decrement,
}

/// How a client names an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderRef {
    /// By the venue's id.
    Id(OrderId),
    /// By the client's label.
    Label(Label),
}

/// Which open orders of the account a mass cancel takes out; `None` is no restriction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MassCancelScope {
    /// Only of this instrument.
    pub instrument: Option<InstrumentId>,
    /// Only this side.
    pub side: Option<Side>,
    /// Only those entered through this session.
    pub session: Option<SessionId>,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferDirection {
    /// To consumption, where Units can no longer be sold.
    ToConsumption,
    /// Back to trading: only whole, untouched Units of lots without a deadline.
    ToTrading,
}

/// The language in which a call was made, and so the endpoint (contract §6.1, §6.8, §6.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum Surface {
    /// OpenAI chat completions.
    #[default]
    ChatCompletions,
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
}

/// Why the supplier that delivered was the one, seen from those who owed the drawn tokens (design §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cover {
    /// It had issued some of the drawn tokens itself.
    #[default]
    Issuer,
    /// Each issuer failed: asked for this call, or so lately that it is left alone, or it is suspended.
    Failed,
    /// An issuer is not to blame: it can't do what the call asked for, or a limit of the tier's own kept it from being
    /// asked.
    Unable,
}

/// What a call consumed, as metered by the inference tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The supplier that delivered.
    pub supplier: AccountId,
    /// Which of its [`SupplierProfile::offers`] served, from 0.
    pub offer: u8,
    /// Tokens of the prompt.
    pub prompt_tokens: Tokens,
    /// Tokens of the completion, reasoning included.
    pub completion_tokens: Tokens,
    /// Time to first token, in microseconds, measured on the supplier's side of the proxy.
    pub ttft_us: u32,
    /// Whole duration in microseconds.
    pub duration_us: u32,
    /// The counts are the venue's own, because the supplier sent none or they were not believable.
    pub estimated: bool,
    /// The stream ended before the supplier was done.
    pub partial: bool,
    /// The supplier's own counts were beyond belief.
    pub distrusted: bool,
    /// Why it was this supplier.
    pub cover: Cover,
    /// Suppliers that were asked for this call, this one too; 0 where nobody counted.
    pub attempts: u8,
}

/// Auto (`easy`) or Advanced Mode (contract §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum AccountMode {
    /// The venue buys when consumption runs low; orders of the owner are refused.
    Easy,
    /// The owner trades.
    Advanced,
}

/// What an account may do beyond trading and consuming for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Capabilities {
    /// Act for any account as its owner would: the HTTP tiers.
    pub tier: bool,
    /// Everything: deposits, instruments, suppliers, accounts.
    pub operator: bool,
}

/// How an account in Auto Mode buys (contract §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct AutoBuy {
    /// On by force in `easy`; a choice in `advanced`.
    pub enabled: bool,
    /// Units bought at a time, at least; default 1.
    pub quantity: Qty,
    /// Buys when fewer Units than this are free in consumption; default 1.
    pub trigger_threshold: Qty,
    /// No fill further than this from the best ask at entry.
    pub max_slippage_bps: u16,
    /// Never more than this for one Unit; zero is no ceiling.
    pub price_ceiling: Usd,
}

impl Default for AutoBuy {
    fn default() -> Self {
        Self {
            enabled: false,
            quantity: Qty(1),
            trigger_threshold: Qty(1),
            max_slippage_bps: 1_000,
            price_ceiling: Usd::ZERO,
        }
    }
}

/// What the venue knows of a supplier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct SupplierProfile {
    /// Shown to the operator only, at most 64 bytes.
    pub name: String,
    /// Base of its OpenAI-compatible API, ending in `/v1`, at most 256 bytes.
    pub base_url: String,
    /// Its API key, sealed with the venue's key; empty where it wants none. At most 512 bytes.
    pub sealed_credential: Vec<u8>,
    /// Which of its models serves which instrument; at most 64.
    pub offers: Vec<Offer>,
    /// Off every roster when true: it gets no traffic, issues nothing and sells nothing on the book. Who only lacks an API
    /// has no offers.
    pub suspended: bool,
}

/// One model of a supplier that may fill one instrument.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Offer {
    /// The instrument that it fills.
    pub instrument: InstrumentId,
    /// The model's name at the supplier, at most 128 bytes.
    pub model: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{DeliveryTerms, MarketTerms, Movement, QualityTerms};

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// Commands with the bytes that journals hold of them since format 3, and of quotes since format 5.
    fn golden() -> Vec<(Command, &'static str)> {
        let place = NewOrder {
            instrument: InstrumentId(300),
            side: Side::Sell,
            kind: OrderKind::Limit { price: Price(77), tif: TimeInForce::PostOnly },
            qty: Qty(12),
            stp: SelfTrade::CancelBoth,
            label: Label(99),
            tag: "tag".into(),
            to_consumption: true,
        };
        let spec = InstrumentSpec {
            symbol: "text".into(),
            name: "Text".into(),
            description: "d".into(),
            quality: QualityTerms {
                index: "AA".into(),
                score_floor: 1,
                tokens_per_second_floor: 2,
                ttft_ceiling_ms: 3,
                context_floor: 4,
                output_floor: 500,
            },
            market: MarketTerms {
                tick: Usd(10),
                lot: Qty(1),
                min_qty: Qty(2),
                max_qty: Qty(300),
                max_price: Price(4_000),
                maker_fee_bps: 5,
                taker_fee_bps: 6,
            },
            delivery: DeliveryTerms { window: Some(Nanos(1_000)), movement: Movement::Swept },
            status: InstrumentStatus::Halted,
        };
        let profile = SupplierProfile {
            name: "s".into(),
            base_url: "u/v1".into(),
            sealed_credential: vec![1, 2, 3],
            offers: vec![Offer { instrument: InstrumentId(9), model: "m".into() }],
            suspended: true,
        };
        let reserve = Command::Reserve {
            instrument: InstrumentId(1),
            tokens: Tokens(2_000),
            request: 5,
            valid_for: Nanos(9),
            key: KeyId(300),
            surface: Surface::Responses,
        };
        let settle = Command::Settle {
            reservation: ReservationId(6),
            usage: Usage {
                supplier: AccountId(7),
                offer: 63,
                prompt_tokens: Tokens(300),
                completion_tokens: Tokens(9),
                ttft_us: 10,
                duration_us: 11,
                estimated: false,
                partial: true,
                distrusted: true,
                cover: Cover::Unable,
                attempts: 3,
            },
        };
        let key = Command::AddConsumptionKey {
            hash: KeyHash([3; 32]),
            prefix: "sk".into(),
            name: "n".into(),
            expires_at: Some(Nanos(4)),
        };
        let side = |price, qty| QuoteSide { price: Price(price), qty: Qty(qty) };
        let entry = |quote, bid, ask| QuoteEntry { instrument: InstrumentId(300), quote, bid, ask };
        let entries = [entry(1, side(98, 5), side(102, 6)), entry(63, side(0, 0), side(300, 7))].into();
        let quotes = Command::MassQuote { entries, stp: SelfTrade::Decrement, post_only: true };
        let protection = QuoteProtection { window: Nanos(300), fills: 4, qty: Qty(200) };
        let protect = Command::SetQuoteProtection(Some(protection));
        vec![
            (quotes, "2c02ac020162056606ac023f0000ac02070401"),
            (protect, "2d01ac0204c801"),
            (Command::SetQuoteProtection(None), "2d00"),
            (Command::Place(place), "00ac0201004d040c03630374616701"),
            (
                Command::DefineInstrument(Box::new(spec)),
                "1304746578740454657874016402414101020304f403140102ac02a01f050601e8070102",
            ),
            (Command::RegisterSupplier(Box::new(profile)), "15017304752f7631030102030109016d01"),
            (reserve, "0501d00f100500000000000000000000000000000009ac0202"),
            (settle, "0606073fac02090a0b0001010203"),
            (key, "0d030303030303030303030303030303030303030303030303030303030303030302736b016e0104"),
        ]
    }

    #[test]
    fn the_log_form_is_that_of_format_3() {
        let before = "10100f0e0d0c0b0a090807060504030201ac0207";
        for (command, bytes) in golden() {
            let session = SessionId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
            let entry = Entry { session, client_seq: 300, account: AccountId(7), command };
            let bytes = unhex(&format!("{before}{bytes}"));
            let mut encoded = Vec::new();
            entry.encode(&mut encoded);
            assert_eq!(encoded, bytes, "{entry:?}");
            assert_eq!(Entry::decode(&bytes), Ok(entry));
        }
    }
}

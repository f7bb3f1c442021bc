//! A second bookkeeper: what every command of the log must bring about, worked out with plain lists and sums.
//!
//! It shares no code with the engine. Matching is the naive book that the engine's own tests use as their oracle; dollars are
//! one total per account (what is held follows from the open orders), Units and tokens are lists by origin. After each command
//! of the committed log the engine's answer, its trades, the ends of orders and every balance are compared with it.
//!
//! It knows the commands that the simulated clients send, and no others: nobody trades in Auto Mode, instruments are defined
//! once, nothing is swept, no calls are free or limited, no instrument promises speed, and suppliers place no bids.

mod commands;
mod compare;
mod delivery;
mod money;
mod quotes;
mod service;
mod time;
mod trading;
mod tranche;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grid_engine::command::{Entry, Side};
use grid_engine::instrument::{DeliveryTerms, MarketTerms};
use grid_engine::sla::SlaTerms;
use grid_engine::{Fingerprint, InstrumentId, Nanos, Reject, Seq, SessionId};

use crate::naive::{Book, Outcome};
use tranche::Tranche;

/// What the answer to a command must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Rejected(Reject),
    New,
    Replaced,
    Cancelled,
    MassCancelled(u32),
    Quoted { accepted: u16, refused: u16 },
    Reserved { reservation: u64, tokens: u64 },
    Settled { billed: u64, unbilled: u64, cost: i64 },
    Done(u64),
}

#[derive(Clone, Debug)]
struct Lot {
    id: u64,
    issuer: u32,
    trade: u64,
    tokens: u64,
    free: u64,
    reserved: u64,
    gone: u64,
    escrow: i64,
    cost: i64,
    expires: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Holding {
    issuance: u64,
    tranches: VecDeque<Tranche>,
    lots: Vec<Lot>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    /// Free and held together.
    usd: i64,
    tier: bool,
    operator: bool,
    supplier: bool,
    /// Capacity, issued, delivered, expired; in tokens, by instrument.
    supply: BTreeMap<u16, [u64; 4]>,
    holdings: BTreeMap<u16, Holding>,
    tags: BTreeSet<u128>,
    /// By instrument.
    collateral: BTreeMap<u16, i64>,
    benchmark: bool,
    funding: money::Funding,
}

#[derive(Clone, Debug)]
struct Session {
    account: u32,
    last: u64,
    connection: Option<u64>,
    grace: Option<u64>,
    cancels_at: Option<u64>,
    ends_at: Option<u64>,
    quotes: quotes::Quotes,
}

#[derive(Clone, Debug)]
struct Reservation {
    account: u32,
    instrument: u16,
    request: u128,
    draws: Vec<(u64, u64)>,
    expires: u64,
}

#[derive(Clone, Debug)]
struct Market {
    terms: MarketTerms,
    delivery: DeliveryTerms,
    live: bool,
    issued: u64,
    book: Book,
    sla: SlaTerms,
    window_ends: Option<u64>,
    last_price: Option<u64>,
}

/// What falls due, in the order in which the engine's timers fire at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Reservation(u64),
    Lot(u32, u16, u64),
    DayOrder(u16, u64),
    Session(u128),
    SessionEnd(u128),
    Window(u16),
    Attestation(u32, u16),
}

/// The venue as the second bookkeeper sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    accounts: Vec<Account>,
    keys: BTreeMap<Fingerprint, u32>,
    sessions: BTreeMap<u128, Session>,
    markets: Vec<Market>,
    reservations: BTreeMap<u64, Reservation>,
    /// The number of the last one, and the slots that are free again.
    reserved: u64,
    free_slots: Vec<u64>,
    to_consumption: BTreeMap<u64, bool>,
    /// Through which session an order came that stands for a quote.
    quoted: BTreeMap<u64, u128>,
    /// Sessions whose quotes are to be pulled once the command is done.
    overrun: Vec<SessionId>,
    /// Sides of a mass quote that this command refuses.
    refused: Vec<quotes::Refused>,
    /// Orders accepted. The model knows no slots and calls an order by its number alone.
    orders: u64,
    trades: u64,
    lots: u64,
    transfers: u64,
    issuances: u64,
    reloads: u64,
    /// Who owes whom.
    debts: BTreeMap<(u32, u32), i64>,
    service: service::Book,
    sign_up_credit: i64,
    one_way: bool,
    seq: u64,
    at: u64,
    outcome: Outcome,
}

/// What the model makes of one command, to be compared with what the engine said.
pub(crate) struct Expected {
    /// The answer, or none where nobody is answered.
    answer: Option<Answer>,
    /// A number that came again.
    repeated: bool,
    outcome: Outcome,
    /// Sides of a mass quote that are refused.
    refused: Vec<quotes::Refused>,
    /// The result of an `Establish`: last client number, or refused.
    established: Option<Result<u64, Reject>>,
}

impl Model {
    /// Works out one command of the log.
    pub(crate) fn apply(&mut self, seq: Seq, at: Nanos, entry: &Entry) -> Expected {
        self.seq = seq.0;
        self.at = at.0;
        self.outcome = Outcome::default();
        self.run_due();
        let mut expected = Expected {
            answer: None,
            repeated: false,
            outcome: Outcome::default(),
            refused: Vec::new(),
            established: None,
        };
        if entry.session == SessionId::VENUE {
            expected.established = self.venue_command(&entry.command);
        } else if let Some(session) = self.sessions.get_mut(&entry.session.0) {
            if entry.client_seq > session.last {
                session.last = entry.client_seq;
                let caller = session.account;
                let subject = entry.account.0;
                let answer = self
                    .permit(caller, subject, &entry.command)
                    .and_then(|()| self.client_command(entry.session, subject, &entry.command));
                expected.answer = Some(answer.unwrap_or_else(Answer::Rejected));
                if (subject as usize) < self.accounts.len() {
                    self.look_at_funds(subject);
                }
                self.pull_overrun_quotes();
            } else {
                expected.repeated = true;
            }
        }
        expected.outcome = std::mem::take(&mut self.outcome);
        expected.refused = std::mem::take(&mut self.refused);
        expected
    }

    fn market(&self, instrument: InstrumentId) -> Result<&Market, Reject> {
        self.markets.get(usize::from(instrument.0)).ok_or(Reject::UnknownInstrument)
    }

    fn holding(&self, who: u32, instrument: InstrumentId) -> Option<&Holding> {
        self.accounts[who as usize].holdings.get(&instrument.0)
    }

    fn holding_mut(&mut self, who: u32, instrument: InstrumentId) -> &mut Holding {
        self.accounts[who as usize].holdings.entry(instrument.0).or_default()
    }

    fn usd_held(&self, who: u32) -> i128 {
        let bids = self.markets.iter().flat_map(|market| {
            let own = market.book.orders.iter();
            let own = own.filter(|order| order.account.0 == who && order.side == Side::Buy);
            own.map(|order| market.book.hold(order.price, order.remaining))
        });
        let collateral = self.accounts[who as usize].collateral.values().copied().map(i128::from);
        bids.chain(collateral).sum()
    }

    fn usd_available(&self, who: u32) -> i128 {
        i128::from(self.accounts[who as usize].usd) - self.usd_held(who)
    }

    fn units_held(&self, who: u32, instrument: usize) -> u64 {
        let orders = self.markets[instrument].book.orders.iter();
        orders.filter(|o| o.account.0 == who && o.side == Side::Sell).map(|order| order.remaining).sum()
    }

    fn units_available(&self, who: u32, instrument: InstrumentId) -> u64 {
        let all = self.holding(who, instrument).map_or(0, |h| h.tranches.iter().map(|t| t.qty).sum());
        all - self.units_held(who, usize::from(instrument.0))
    }
}

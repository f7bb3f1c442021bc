//! An engine that keeps every command it was given. Ids are the engine's to assign, so a stream is made by applying it once: what is chosen
//! next may then depend on what is open, and a cancel carries the id that the engine will give again when the stream is run.

use grid_engine::command::{AccountMode, AutoBuy, Capabilities, Command, Entry};
use grid_engine::event::{Event, ReportBody};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{AccountId, Engine, Fingerprint, InstrumentId, Nanos, Price, Qty, Seq, SessionId, Usd};

const OPERATOR_KEY: [u8; 32] = [7; 32];
/// Far more than any stream can trade.
const STOCK: Qty = Qty(1_000_000_000);
/// All of a venue's traders together stay below what a venue may hold.
const ALL_MONEY: i64 = 1_000_000_000;

/// What a venue is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Accounts that trade.
    pub traders: u32,
    /// Instruments, all alike.
    pub instruments: u16,
    /// Each instrument is supplied to this many traders, in turn; the others can only buy it.
    pub sellers: u32,
    /// Sessions through which commands enter, as through tiers of a gateway: an account keeps to one of them.
    pub sessions: u32,
    /// Highest price, in ticks.
    pub max_price: u64,
    /// Traders in Auto Mode, which consume and do not trade; opened after the others.
    pub consumers: u32,
}

/// An engine, and the commands that made it what it is.
#[derive(Debug)]
pub struct Venue {
    engine: Engine,
    seq: Seq,
    lanes: Vec<Lane>,
    /// Sessions of the first traders' own.
    own: Vec<Lane>,
    events: Vec<Event>,
    traders: Vec<AccountId>,
    tape: Vec<Entry>,
    last: Entry,
    trades: u64,
}

#[derive(Debug)]
struct Lane {
    session: SessionId,
    client_seq: u64,
}

impl Venue {
    /// With accounts that can pay and deliver.
    ///
    /// # Panics
    /// When the engine refuses any of it.
    #[must_use]
    pub fn open(setup: &Setup) -> Self {
        let mut venue = Self {
            engine: Engine::new(),
            seq: Seq::ZERO,
            lanes: Vec::new(),
            own: Vec::new(),
            events: Vec::new(),
            traders: Vec::new(),
            tape: Vec::new(),
            last: Entry::venue(Command::Tick),
            trades: 0,
        };
        venue.apply(Entry::venue(Command::Genesis { operator_key: OPERATOR_KEY }));
        let key = Fingerprint::of(&OPERATOR_KEY);
        let mut operator = AccountId::VENUE;
        for nth in 1..=u128::from(setup.sessions) {
            venue.apply(Entry::venue(Command::OpenSession { session: SessionId(nth), key }));
            operator = match &venue.events[..] {
                [Event::SessionOpened { result: Ok(account), .. }] => *account,
                other => unreachable!("the operator's key opens a session: {other:?}"),
            };
            venue.lanes.push(Lane { session: SessionId(nth), client_seq: 0 });
        }
        for nth in 0..setup.instruments {
            venue.ask(operator, instrument(nth, setup.max_price));
        }
        for nth in 0..setup.traders + setup.consumers {
            venue.open_account(operator, nth >= setup.traders, i64::from(setup.traders + setup.consumers));
        }
        for instrument in (0..setup.instruments).map(InstrumentId) {
            for nth in 0..setup.sellers.min(setup.traders) {
                let seller = (u32::from(instrument.0) * setup.sellers + nth) % setup.traders;
                let account = venue.traders[seller as usize];
                venue.ask(account, Command::SetCapacity { instrument, capacity: STOCK });
                venue.ask(account, Command::Issue { instrument, qty: STOCK });
                venue.ask(account, Command::TransferIssuance { instrument, qty: STOCK });
            }
        }
        venue
    }

    fn open_account(&mut self, operator: AccountId, consumer: bool, of: i64) {
        let mode = if consumer { AccountMode::Easy } else { AccountMode::Advanced };
        let open = Command::OpenAccount { name: String::new(), mode, capabilities: Capabilities::default() };
        let account = AccountId(u32::try_from(self.ask(operator, open)).expect("account ids have 32 bits"));
        self.ask(account, Command::Deposit { amount: Usd::dollars(ALL_MONEY / of) });
        if consumer {
            // Buys one Unit when a call does not find enough, and not before.
            let auto_buy = AutoBuy { enabled: true, trigger_threshold: Qty(0), ..AutoBuy::default() };
            self.ask(account, Command::SetAutoBuy(auto_buy));
        } else {
            self.ask(account, Command::RegisterSupplier(Box::default()));
        }
        self.traders.push(account);
    }

    /// Applies a command of a trader, through its session; what happened is in [`Venue::events`].
    pub fn send(&mut self, trader: u32, command: Command) {
        self.submit(self.traders[trader as usize], command);
    }

    /// Gives a trader a session of its own.
    ///
    /// # Panics
    /// When it has one, or no trader before it has one: such sessions are opened in order.
    pub fn own_session(&mut self, trader: u32) {
        assert_eq!(trader as usize, self.own.len(), "own sessions are opened in order");
        let public_key = [trader as u8; 32];
        let account = self.traders[trader as usize];
        self.ask(account, Command::AddSigningKey { public_key, label: String::new() });
        let (session, key) = (SessionId(1_000 + u128::from(trader)), Fingerprint::of(&public_key));
        self.apply(Entry::venue(Command::OpenSession { session, key }));
        assert!(matches!(self.events[..], [Event::SessionOpened { result: Ok(_), .. }]), "{:?}", self.events);
        self.own.push(Lane { session, client_seq: 0 });
    }

    /// Applies a command of a trader through its own session.
    pub fn send_own(&mut self, trader: u32, command: Command) {
        let lane = &mut self.own[trader as usize];
        lane.client_seq += 1;
        let (session, client_seq, account) = (lane.session, lane.client_seq, self.traders[trader as usize]);
        self.apply(Entry { session, client_seq, account, command });
    }

    /// The first command of the stream again, or the last of the set-up, with the number that it had: it is answered and not executed.
    ///
    /// # Panics
    /// When it is executed.
    pub fn repeat(&mut self) {
        let again = self.tape.first().unwrap_or(&self.last).clone();
        self.apply(again);
        let repeated = matches!(self.events[..], [Event::Repeated { report: Some(_), .. }]);
        assert!(repeated, "an old number is answered: {:?}", self.events);
    }

    /// What the last command did.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// After the last command.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Matches so far.
    #[must_use]
    pub const fn trades(&self) -> u64 {
        self.trades
    }

    /// The number of the last command.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// The account of a trader.
    #[must_use]
    pub fn account(&self, trader: u32) -> AccountId {
        self.traders[trader as usize]
    }

    /// The commands since the last call.
    pub fn take_tape(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.tape)
    }

    /// Forgets the commands that were given so far.
    pub fn clear_tape(&mut self) {
        self.tape = Vec::new();
    }

    /// The last command, taken off the tape.
    pub fn pop_tape(&mut self) -> Option<Entry> {
        self.tape.pop()
    }

    fn apply(&mut self, entry: Entry) {
        self.seq = self.seq.next();
        self.events.clear();
        self.engine.apply(self.seq, Nanos(self.seq.0), &entry, &mut self.events);
        self.trades += self.events.iter().filter(|event| matches!(event, Event::Traded(_))).count() as u64;
        self.last = entry.clone();
        self.tape.push(entry);
    }

    fn submit(&mut self, account: AccountId, command: Command) {
        let lane = account.0 as usize % self.lanes.len();
        let lane = &mut self.lanes[lane];
        lane.client_seq += 1;
        let (session, client_seq) = (lane.session, lane.client_seq);
        self.apply(Entry { session, client_seq, account, command });
    }

    /// A command of the set-up, which must succeed; the id of what it made.
    fn ask(&mut self, account: AccountId, command: Command) -> u64 {
        self.submit(account, command);
        let done = self.events.iter().find_map(|event| match event {
            Event::Report { report, .. } => match report.body {
                ReportBody::Done { created } => Some(created),
                _ => None,
            },
            _ => None,
        });
        done.unwrap_or_else(|| {
            panic!("the set-up is accepted: {:?} came to {:?}", self.tape.last(), self.events)
        })
    }
}

/// A tick is a hundred-thousandth of a dollar, and fees are taken: a bench of a venue that moves no money would flatter it.
fn instrument(nth: u16, max_price: u64) -> Command {
    Command::DefineInstrument(Box::new(InstrumentSpec {
        symbol: format!("bench-{nth}"),
        name: "Bench".into(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: Usd(10_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(1_000_000),
            max_price: Price(max_price),
            maker_fee_bps: 2,
            taker_fee_bps: 5,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }))
}

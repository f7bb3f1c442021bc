//! An engine that keeps every command it was given. Ids are the engine's to assign, so a stream is made by applying it once: what is chosen
//! next may then depend on what is open, and a cancel carries the id that the engine will give again when the stream is run.

use grid_engine::command::{AccountMode, AutoBuy, Command, Entry};
use grid_engine::event::{Event, ReportBody};
use grid_engine::{AccountId, Engine, Fingerprint, InstrumentId, Nanos, Qty, Seq, SessionId, Usd};

use crate::founding::{Founding, Lane, Lanes, instrument};

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
    lanes: Lanes,
    /// Sessions of the first traders' own.
    own: Vec<Lane>,
    events: Vec<Event>,
    traders: Vec<AccountId>,
    tape: Vec<Entry>,
    last: Entry,
    trades: u64,
}

impl Venue {
    /// With accounts that can pay and deliver.
    ///
    /// # Panics
    /// When the engine refuses any of it.
    #[must_use]
    pub fn open(setup: &Setup) -> Self {
        let mut founding = Founding::new(OPERATOR_KEY, setup.sessions);
        for nth in 0..setup.instruments {
            founding.instrument(instrument(&format!("bench-{nth}"), setup.max_price));
        }
        let accounts = setup.traders + setup.consumers;
        let money = Usd::dollars(ALL_MONEY / i64::from(accounts));
        let traders: Vec<_> =
            (0..accounts).map(|nth| open_account(&mut founding, nth >= setup.traders, money)).collect();
        for instrument in (0..setup.instruments).map(InstrumentId) {
            for nth in 0..setup.sellers.min(setup.traders) {
                let seller = (u32::from(instrument.0) * setup.sellers + nth) % setup.traders;
                founding.supply(traders[seller as usize], instrument, STOCK);
            }
        }
        let (entries, lanes) = founding.into_parts();
        let mut venue = Self {
            engine: Engine::new(),
            seq: Seq::ZERO,
            lanes,
            own: Vec::new(),
            events: Vec::new(),
            traders,
            tape: Vec::new(),
            last: Entry::venue(Command::Tick),
            trades: 0,
        };
        for entry in entries {
            let asked = entry.session != SessionId::VENUE;
            venue.apply(entry);
            assert!(
                !asked || venue.is_done(),
                "the set-up is accepted: {:?} came to {:?}",
                venue.last,
                venue.events
            );
        }
        venue
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
        self.submit(account, Command::AddSigningKey { public_key, label: String::new() });
        assert!(self.is_done(), "{:?}", self.events);
        let (session, key) = (SessionId(1_000 + u128::from(trader)), Fingerprint::of(&public_key));
        self.apply(Entry::venue(Command::OpenSession { session, key }));
        assert!(matches!(self.events[..], [Event::SessionOpened { result: Ok(_), .. }]), "{:?}", self.events);
        self.own.push(Lane::new(session));
    }

    /// Applies a command of a trader through its own session.
    pub fn send_own(&mut self, trader: u32, command: Command) {
        let entry = self.own[trader as usize].entry(self.traders[trader as usize], command);
        self.apply(entry);
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
        let entry = self.lanes.entry(account, command);
        self.apply(entry);
    }

    /// Whether the last command, which is none of an order, was done.
    fn is_done(&self) -> bool {
        let done = |event: &Event| matches!(event, Event::Report { report, .. } if matches!(report.body, ReportBody::Done { .. }));
        self.events.iter().any(done)
    }
}

/// An account that can pay and trade, or one that consumes.
fn open_account(founding: &mut Founding, consumer: bool, money: Usd) -> AccountId {
    let account = founding.account(if consumer { AccountMode::Easy } else { AccountMode::Advanced });
    founding.ask(account, Command::Deposit { amount: money });
    let then = if consumer {
        // Buys one Unit when a call does not find enough, and not before.
        Command::SetAutoBuy(AutoBuy { enabled: true, trigger_threshold: Qty(0), ..AutoBuy::default() })
    } else {
        Command::RegisterSupplier(Box::default())
    };
    founding.ask(account, then);
    account
}

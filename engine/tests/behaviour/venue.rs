//! An engine with its log: sequence numbers, stamps and sessions, as the sequencer and a gateway would give them.

use grid_engine::command::{AccountMode, Capabilities, Command, Entry};
use grid_engine::event::{Event, Report, ReportBody};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, Nanos, Price, Qty, Reject, SECOND, Seq, SessionId, Usd,
};

/// 2026-01-01 10:00:00 UTC.
pub(crate) const START: Nanos = Nanos(1_767_261_600 * SECOND);
/// The operator's key.
pub(crate) const OPERATOR_KEY: [u8; 32] = [255; 32];

/// A participant with its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor {
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    /// The last client sequence that it used.
    pub(crate) client_seq: u64,
}

/// An engine and its log so far.
#[derive(Clone)]
pub(crate) struct Venue {
    pub(crate) engine: Engine,
    pub(crate) seq: Seq,
    pub(crate) now: Nanos,
    /// What the last command did.
    pub(crate) events: Vec<Event>,
    /// Every entry with its stamp, when kept.
    pub(crate) log: Option<Vec<(Nanos, Entry)>>,
    pub(crate) operator: Actor,
}

impl Venue {
    /// A venue with nothing but its operator.
    pub(crate) fn open() -> Self {
        let mut venue = Self {
            engine: Engine::new(),
            seq: Seq::ZERO,
            now: START,
            events: Vec::new(),
            log: Some(Vec::new()),
            operator: Actor { account: AccountId::VENUE, session: SessionId(1), client_seq: 0 },
        };
        venue.apply(Entry::venue(Command::Genesis { operator_key: OPERATOR_KEY }));
        venue.operator = venue.connect(SessionId(1), OPERATOR_KEY);
        venue
    }

    pub(crate) fn apply(&mut self, entry: Entry) {
        self.seq = self.seq.next();
        self.events.clear();
        self.engine.apply(self.seq, self.now, &entry, &mut self.events);
        if let Some(log) = &mut self.log {
            log.push((self.now, entry));
        }
    }

    /// What the last command told sessions.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (SessionId, Report)> + '_ {
        self.events.iter().filter_map(|event| self.report(event))
    }

    /// What an event of the last command told a session.
    pub(crate) fn report(&self, event: &Event) -> Option<(SessionId, Report)> {
        event.report(self.seq, self.now)
    }

    /// Applies a command under the actor's next number.
    pub(crate) fn send(&mut self, actor: &mut Actor, account: AccountId, command: Command) {
        actor.client_seq += 1;
        self.apply(Entry { session: actor.session, client_seq: actor.client_seq, account, command });
    }

    /// The same, and the answer's body.
    pub(crate) fn ask(&mut self, actor: &mut Actor, account: AccountId, command: Command) -> ReportBody {
        self.send(actor, account, command);
        self.answer(actor).body
    }

    /// The first report that echoes the actor's last number.
    pub(crate) fn answer(&self, actor: &Actor) -> Report {
        let key = (actor.session, actor.client_seq);
        let answer = self.reports().find(|(session, report)| (*session, report.client_seq) == key);
        answer
            .map(|(_, report)| report)
            .unwrap_or_else(|| panic!("every command is answered: {actor:?} {:?}", self.events))
    }

    /// A command of the operator that must succeed; what it created.
    pub(crate) fn operate(&mut self, account: AccountId, command: Command) -> u64 {
        let mut operator = self.operator;
        let words = format!("{command:?}");
        let body = self.ask(&mut operator, account, command);
        self.operator = operator;
        match body {
            ReportBody::Done { created } => created,
            other => panic!("{words}: {other:?}"),
        }
    }

    /// An account with a key and a session that is connected.
    pub(crate) fn join(&mut self, name: &str, mode: AccountMode, capabilities: Capabilities) -> Actor {
        let open = Command::OpenAccount { name: name.into(), mode, capabilities };
        let account = AccountId(u32::try_from(self.operate(self.operator.account, open)).unwrap());
        let key = key_of(account);
        self.operate(account, Command::AddSigningKey { public_key: key, label: String::new() });
        self.connect(SessionId(u128::from(account.0) + 100), key)
    }

    pub(crate) fn connect(&mut self, session: SessionId, key: [u8; 32]) -> Actor {
        let key = Fingerprint::of(&key);
        self.apply(Entry::venue(Command::OpenSession { session, key }));
        let account = match &self.events[..] {
            [Event::SessionOpened { result: Ok(account), .. }] => *account,
            other => panic!("a session opens: {other:?}"),
        };
        self.apply(Entry::venue(Command::Establish {
            session,
            key,
            cancel_on_disconnect: None,
            connection: 1,
        }));
        Actor { account, session, client_seq: 0 }
    }

    pub(crate) fn deposit(&mut self, account: AccountId, amount: Usd) {
        self.operate(account, Command::Deposit { amount });
    }

    /// Makes the account a supplier with room for `capacity` Units.
    pub(crate) fn supply(&mut self, account: AccountId, instrument: InstrumentId, capacity: Qty) {
        self.operate(account, Command::RegisterSupplier(Box::default()));
        self.operate(account, Command::SetCapacity { instrument, capacity });
    }

    /// Issues Units and moves them to trading.
    pub(crate) fn stock(&mut self, account: AccountId, instrument: InstrumentId, qty: Qty) {
        self.operate(account, Command::Issue { instrument, qty });
        self.operate(account, Command::TransferIssuance { instrument, qty });
    }

    pub(crate) fn define(&mut self, spec: InstrumentSpec) -> InstrumentId {
        let symbol = spec.symbol.clone();
        self.operate(self.operator.account, Command::DefineInstrument(Box::new(spec)));
        self.engine.state().symbols[&symbol]
    }

    pub(crate) fn usd_available(&self, account: AccountId) -> Usd {
        self.engine.state().accounts[account.0 as usize].usd_available
    }

    pub(crate) fn units_available(&self, account: AccountId, instrument: InstrumentId) -> Qty {
        self.engine.state().holding(account, instrument).map_or(Qty::ZERO, |holding| holding.available)
    }
}

/// The key that `join` registers.
pub(crate) fn key_of(account: AccountId) -> [u8; 32] {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&account.0.to_le_bytes());
    key
}

/// A cent a tick, single Units, no fees, no deadline, at fill, live.
pub(crate) fn spec(symbol: &str) -> InstrumentSpec {
    InstrumentSpec {
        symbol: symbol.into(),
        name: symbol.into(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: Usd(10_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(10_000),
            max_price: Price(100_000),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}

/// The reject of an answer, if it is one.
pub(crate) const fn rejected(body: &ReportBody) -> Option<Reject> {
    match body {
        ReportBody::Rejected { reject, .. } => Some(*reject),
        _ => None,
    }
}

//! How the venues of the benches are founded: the first commands of a log. No engine is needed to make them, because accounts and
//! instruments are numbered in the order in which they come.

use grid_engine::command::{AccountMode, Capabilities, Command, Entry};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{AccountId, Fingerprint, InstrumentId, Price, Qty, SessionId, Usd};

/// The account that the operator's key speaks for.
pub const OPERATOR: AccountId = AccountId(1);

/// A venue as far as it is founded.
#[derive(Debug)]
pub struct Founding {
    entries: Vec<Entry>,
    lanes: Lanes,
    accounts: u32,
    instruments: u16,
}

impl Founding {
    /// A venue whose operator has this key, with so many sessions of that operator's, as of tiers of a gateway: an account keeps to
    /// one of them.
    #[must_use]
    pub fn new(operator_key: [u8; 32], sessions: u32) -> Self {
        let lanes = Lanes((1..=u128::from(sessions)).map(|nth| Lane::new(SessionId(nth))).collect());
        let key = Fingerprint::of(&operator_key);
        let mut entries = vec![Entry::venue(Command::Genesis { operator_key })];
        let open = |lane: &Lane| Entry::venue(Command::OpenSession { session: lane.session, key });
        entries.extend(lanes.0.iter().map(open));
        Self { entries, lanes, accounts: OPERATOR.0, instruments: 0 }
    }

    /// A command on behalf of an account.
    pub fn ask(&mut self, account: AccountId, command: Command) {
        let entry = self.lanes.entry(account, command);
        self.entries.push(entry);
    }

    /// Defines the next instrument.
    pub fn instrument(&mut self, spec: InstrumentSpec) -> InstrumentId {
        self.ask(OPERATOR, Command::DefineInstrument(Box::new(spec)));
        self.instruments += 1;
        InstrumentId(self.instruments - 1)
    }

    /// Opens the next account.
    pub fn account(&mut self, mode: AccountMode) -> AccountId {
        let (name, capabilities) = (String::new(), Capabilities::default());
        self.ask(OPERATOR, Command::OpenAccount { name, mode, capabilities });
        self.accounts += 1;
        AccountId(self.accounts)
    }

    /// Lets an account sign with this key.
    pub fn key(&mut self, account: AccountId, public_key: [u8; 32]) {
        self.ask(account, Command::AddSigningKey { public_key, label: String::new() });
    }

    /// Gives a supplier Units of its own to sell.
    pub fn supply(&mut self, supplier: AccountId, instrument: InstrumentId, qty: Qty) {
        self.ask(supplier, Command::SetCapacity { instrument, capacity: qty });
        self.ask(supplier, Command::Issue { instrument, qty });
        self.ask(supplier, Command::TransferIssuance { instrument, qty });
    }

    /// The commands so far, in the order of the log.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The same, and the sessions that they came through.
    pub(crate) fn into_parts(self) -> (Vec<Entry>, Lanes) {
        (self.entries, self.lanes)
    }
}

/// What is traded, at prices of at most so many ticks. A tick is a hundred-thousandth of a dollar, and fees are taken: a bench of a venue that
/// moves no money would flatter it.
#[must_use]
pub fn instrument(symbol: &str, max_price: u64) -> InstrumentSpec {
    InstrumentSpec {
        symbol: symbol.to_owned(),
        name: symbol.to_owned(),
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
    }
}

/// Sessions that accounts share.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<Lane>);

impl Lanes {
    /// An account's next command, in its session.
    pub(crate) fn entry(&mut self, account: AccountId, command: Command) -> Entry {
        let lane = account.0 as usize % self.0.len();
        self.0[lane].entry(account, command)
    }
}

/// A session, and the number of the last command in it.
#[derive(Debug)]
pub(crate) struct Lane {
    session: SessionId,
    client_seq: u64,
}

impl Lane {
    pub(crate) const fn new(session: SessionId) -> Self {
        Self { session, client_seq: 0 }
    }

    /// The next command in it.
    pub(crate) const fn entry(&mut self, account: AccountId, command: Command) -> Entry {
        self.client_seq += 1;
        Entry { session: self.session, client_seq: self.client_seq, account, command }
    }
}

#[cfg(test)]
mod tests {
    use grid_engine::event::{Event, ReportBody};
    use grid_engine::{Engine, Nanos, Seq};

    use super::*;

    #[test]
    fn everything_is_done_and_numbered_as_foretold() {
        let mut founding = Founding::new([7; 32], 3);
        let instrument = founding.instrument(instrument("one", 1_000));
        let accounts = [AccountMode::Advanced, AccountMode::Easy].map(|mode| founding.account(mode));
        founding.key(accounts[0], [8; 32]);
        founding.ask(accounts[0], Command::RegisterSupplier(Box::default()));
        founding.supply(accounts[0], instrument, Qty(5));
        let (mut engine, mut created) = (Engine::new(), Vec::new());
        for (seq, entry) in (1..).map(Seq).zip(founding.into_entries()) {
            let mut events = Vec::new();
            engine.apply(seq, Nanos(seq.0), &entry, &mut events);
            let done = events.iter().find_map(|event| match event {
                Event::Report { report, .. } => Some(&report.body),
                _ => None,
            });
            match done {
                Some(ReportBody::Done { created: id }) => created.push(*id),
                None if entry.session == SessionId::VENUE => {}
                other => panic!("{entry:?} came to {other:?}"),
            }
        }
        assert_eq!(created[..3], [u64::from(instrument.0), accounts[0].0.into(), accounts[1].0.into()]);
        assert_eq!(engine.state().supplies.get(accounts[0], instrument).map(|it| it.capacity), Some(Qty(5)));
    }
}

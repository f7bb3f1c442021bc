//! A venue in memory: the real engine behind a queue of a settable size, with time in the test's hands. What it
//! leaves out is the disk, which is not what these tests are about.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use ed25519_dalek::SigningKey;
use grid_engine::command::{AccountMode, Capabilities};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Command, Engine, Entry, Event, Fingerprint, InstrumentId, Nanos, Price, Qty, Seq, SessionId,
    State, Usd,
};
use grid_orders::{Line, LineError, View, Wake};

const SETUP: SessionId = SessionId(0xFFFF);

pub(crate) struct Venue {
    pub(crate) engine: RwLock<Engine>,
    queue: Mutex<VecDeque<Entry>>,
    wake: Mutex<Option<Wake>>,
    /// Entries that the queue holds at most.
    pub(crate) room: AtomicUsize,
    /// The log's clock.
    pub(crate) now: AtomicU64,
}

pub(crate) struct Queue(pub(crate) Arc<Venue>);

pub(crate) fn operator_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn key(account: u8) -> SigningKey {
    SigningKey::from_bytes(&[account; 32])
}

/// Two instruments; accounts 2, 3, 4 with dollars and the key of their number; account 2 also has Units. Always the same.
pub(crate) fn founded() -> Engine {
    let mut engine = Engine::new();
    let mut seq = 0;
    let mut apply = |entry: Entry| {
        seq += 1;
        let mut events = Vec::new();
        engine.apply(Seq(seq), Nanos(seq), &entry, &mut events);
        let refused = events.iter().any(|event| format!("{event:?}").contains("Rejected"));
        assert!(!refused, "{entry:?}: {events:?}");
    };
    let operator = operator_key();
    apply(Entry::venue(Command::Genesis { operator_key: operator.verifying_key().to_bytes() }));
    let fingerprint = Fingerprint::of(&operator.verifying_key().to_bytes());
    apply(Entry::venue(Command::OpenSession { session: SETUP, key: fingerprint }));
    let mut client_seq = 0;
    let mut ask = |account: u32, command: Command| {
        client_seq += 1;
        apply(Entry { session: SETUP, client_seq, account: AccountId(account), command });
    };
    for symbol in ["text-prime", "text-standard"] {
        ask(1, Command::DefineInstrument(Box::new(spec(symbol))));
    }
    for account in 2..=4_u8 {
        ask(
            1,
            Command::OpenAccount {
                name: format!("account {account}"),
                mode: AccountMode::Advanced,
                capabilities: Capabilities::default(),
            },
        );
        let subject = u32::from(account);
        let public_key = key(account).verifying_key().to_bytes();
        ask(subject, Command::AddSigningKey { public_key, label: "test".to_owned() });
        ask(subject, Command::Deposit { amount: Usd::dollars(1_000_000) });
    }
    ask(2, Command::RegisterSupplier(Default::default()));
    for instrument in [InstrumentId(0), InstrumentId(1)] {
        ask(2, Command::SetCapacity { instrument, capacity: Qty(1_000_000) });
        ask(2, Command::Issue { instrument, qty: Qty(1_000_000) });
        ask(2, Command::TransferIssuance { instrument, qty: Qty(1_000_000) });
    }
    engine
}

impl Venue {
    /// A venue as it was founded.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            engine: RwLock::new(founded()),
            queue: Mutex::new(VecDeque::new()),
            wake: Mutex::new(None),
            room: AtomicUsize::new(100_000),
            now: AtomicU64::new(1_000_000),
        })
    }

    /// Puts a command of the venue itself in line.
    pub(crate) fn inject(&self, entry: Entry) {
        self.queue.lock().unwrap().push_back(entry);
        self.wake();
    }

    /// A command of the operator, through a session of its own.
    pub(crate) fn operate(&self, account: u32, command: Command) {
        let client_seq = self.engine.read().unwrap().state().sessions[&SETUP].last_client_seq + 1;
        self.inject(Entry { session: SETUP, client_seq, account: AccountId(account), command });
    }

    /// Commands in line that nobody was told of yet.
    pub(crate) fn queued(&self) -> usize {
        self.queue.lock().unwrap().len()
    }

    fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap() {
            wake();
        }
    }

    /// Waits until the state is as wanted.
    pub(crate) fn until(&self, wanted: impl Fn(&State) -> bool) {
        let begun = std::time::Instant::now();
        while !wanted(self.engine.read().unwrap().state()) {
            assert!(begun.elapsed().as_secs() < 60, "the state never came to be as wanted");
            std::thread::yield_now();
        }
    }
}

impl Line for Queue {
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        assert_eq!(epoch, 1);
        let mut queue = self.0.queue.lock().unwrap();
        if queue.len() >= self.0.room.load(Ordering::SeqCst) {
            return Err(LineError::Full);
        }
        queue.push_back(entry);
        drop(queue);
        self.0.wake();
        Ok(())
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool {
        for _ in 0..64 {
            let Some(entry) = self.0.queue.lock().unwrap().pop_front() else {
                return false;
            };
            let mut engine = self.0.engine.write().unwrap();
            let seq = Seq(engine.state().seq.0 + 1);
            let at = Nanos(self.0.now.load(Ordering::SeqCst));
            let mut events = Vec::new();
            engine.apply(seq, at, &entry, &mut events);
            drop(engine);
            each(seq, at, &events);
        }
        true
    }

    fn wake_with(&mut self, wake: Wake) {
        *self.0.wake.lock().unwrap() = Some(wake);
    }

    fn epoch(&self) -> Option<u64> {
        Some(1)
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        None
    }
}

impl View for Venue {
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(self.engine.read().unwrap().state())
    }

    fn applied(&self) -> Seq {
        self.engine.read().unwrap().state().seq
    }
}

pub(crate) fn spec(symbol: &str) -> InstrumentSpec {
    InstrumentSpec {
        symbol: symbol.to_owned(),
        name: symbol.to_owned(),
        description: String::new(),
        quality: QualityTerms::default(),
        market: MarketTerms {
            tick: Usd(10_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(1_000_000),
            max_price: Price(1_000_000),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}

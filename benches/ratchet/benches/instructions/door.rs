//! An order gateway that is turned by hand, with one client on a socket of loopback, and a line that has every answer ready: what a request costs
//! between its frame and its report, apart from log and engine.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer, SigningKey};
use grid_engine::command::{AccountMode, Command, Entry, OrderRef, SelfTrade, Side};
use grid_engine::event::Event;
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, Nanos, Price, Qty, Seq, SessionId, State, Usd,
};
use grid_engine_benches::founding::{Founding, instrument};
use grid_orders::{ByHand, Config, Line, LineError, Rate, View, Wait, Wake};
use grid_wire::{self as wire, ExecutionReport, MAX_FRAME_LEN, Message, scan};

const MARKET: InstrumentId = InstrumentId(0);
const SESSION: SessionId = SessionId(77);
const TRADER: AccountId = AccountId(2);
/// Prices that orders are spread over.
const LEVELS: u64 = 64;
const PRICE: u64 = 1_000;

fn key(of: u8) -> SigningKey {
    SigningKey::from_bytes(&[of; 32])
}

fn fingerprint(of: u8) -> Fingerprint {
    Fingerprint::of(&key(of).verifying_key().to_bytes())
}

fn apply(engine: &mut Engine, entry: &Entry) -> Vec<Event> {
    let (seq, mut events) = (engine.state().seq.next(), Vec::new());
    engine.apply(seq, Nanos(seq.0), entry, &mut events);
    events
}

/// One instrument, and one account with money and a key of its own.
fn founded() -> Engine {
    let mut founding = Founding::new(key(1).verifying_key().to_bytes(), 1);
    founding.instrument(instrument("text-prime", 10_000_000));
    let trader = founding.account(AccountMode::Advanced);
    founding.key(trader, key(2).verifying_key().to_bytes());
    founding.ask(trader, Command::Deposit { amount: Usd::dollars(1_000_000) });
    assert_eq!(trader, TRADER);
    let mut engine = Engine::new();
    founding.into_entries().iter().for_each(|entry| drop(apply(&mut engine, entry)));
    engine
}

/// One command and what it brought about.
type Answer = (Seq, Vec<Event>);

/// A line whose engine sees to logins; what requests bring about was found out before.
struct Prepared {
    engine: Arc<RwLock<Engine>>,
    answers: VecDeque<Answer>,
    /// In line, and not yet told of.
    entered: Vec<Entry>,
    told: Vec<Answer>,
}

impl Line for Prepared {
    fn submit(&mut self, entry: Entry, _: u64) -> Result<(), LineError> {
        self.entered.push(entry);
        Ok(())
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool {
        for entry in self.entered.drain(..) {
            let (seq, events) = match entry.command {
                Command::Place(_) | Command::Cancel { .. } => {
                    self.answers.pop_front().expect("as many were prepared")
                }
                _ => {
                    let mut engine = self.engine.write().expect("nobody panics");
                    let events = apply(&mut engine, &entry);
                    (engine.state().seq, events)
                }
            };
            each(seq, Nanos(seq.0), &events);
            // Whoever let go of them would be counted.
            self.told.push((seq, events));
        }
        false
    }

    fn wake_with(&mut self, _: Wake) {}

    fn epoch(&self) -> Option<u64> {
        Some(1)
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        None
    }
}

struct Books(Arc<RwLock<Engine>>);

impl View for Books {
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(self.0.read().expect("nobody panics").state())
    }

    fn applied(&self) -> Seq {
        self.0.read().expect("nobody panics").state().seq
    }
}

/// A gateway with one client, and what that one asks.
pub(crate) struct Door {
    gateway: ByHand<Prepared, Books>,
    client: TcpStream,
    /// Ready to be sent, the next one last.
    bursts: Vec<Vec<u8>>,
    /// Requests in a burst.
    burst: usize,
    /// Bytes of an execution report.
    report: usize,
    heard: Vec<u8>,
}

impl Door {
    /// One that is warm, with `bursts` of `burst` requests left to be asked.
    pub(crate) fn warm(bursts: usize, burst: usize) -> Self {
        let engine = founded();
        let mut asked = Asked::of(engine.clone(), 2 * bursts, burst);
        let (requests, engine) = (2 * bursts * burst, Arc::new(RwLock::new(engine)));
        let line = Prepared {
            engine: Arc::clone(&engine),
            answers: asked.answers,
            entered: Vec::with_capacity(burst),
            told: Vec::with_capacity(requests + 8),
        };
        let unbounded = Rate { per_second: 100_000_000, burst: 100_000_000 };
        let config =
            Config { wait: Wait::Spin, requests: unbounded, cancels: unbounded, ..Config::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let gateway = ByHand::new(listener, config, line, Books(engine)).expect("a gateway");
        let client = TcpStream::connect(gateway.address()).expect("it listens");
        client.set_nodelay(true).expect("a socket");
        client.set_nonblocking(true).expect("a socket");
        asked.bursts.reverse();
        let mut report = Vec::new();
        ExecutionReport::default().encode(&mut report);
        let (report, heard) = (report.len(), vec![0; (burst + 1) * report.len()]);
        let mut door = Self { gateway, client, bursts: asked.bursts, burst, report, heard };
        door.log_in();
        door.run(bursts);
        door
    }

    fn log_in(&mut self) {
        let nonce = self.hear(|message| match message {
            Message::Hello(hello) => Some(hello.server_nonce),
            _ => None,
        });
        let timestamp =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let (session, fingerprint) = (SESSION.0, fingerprint(2).0);
        let mut negotiate = wire::Negotiate {
            session,
            fingerprint,
            timestamp,
            schema_version: wire::SCHEMA_VERSION,
            client_flow: wire::Flow::Idempotent,
            server_flow: wire::Flow::Recoverable,
            ..wire::Negotiate::default()
        };
        let signed = key(2).sign(&wire::negotiate_transcript(&nonce, &negotiate));
        negotiate.signature = wire::Signature(signed.to_bytes());
        self.say(|out| negotiate.encode(out));
        self.hear(|message| matches!(message, Message::NegotiationResponse(_)).then_some(()));
        let mut establish = wire::Establish {
            session,
            fingerprint,
            timestamp,
            next_seq: 1,
            keep_alive_ms: 60_000,
            schema_version: wire::SCHEMA_VERSION,
            ..wire::Establish::default()
        };
        let signed = key(2).sign(&wire::establish_transcript(&nonce, &establish));
        establish.signature = wire::Signature(signed.to_bytes());
        self.say(|out| establish.encode(out));
        self.hear(|message| matches!(message, Message::EstablishmentAck(_)).then_some(()));
    }

    fn say(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        self.client.write_all(&out).expect("the gateway reads");
    }

    /// Turns the gateway until it says something.
    fn hear<R>(&mut self, take: impl Fn(&Message<'_>) -> Option<R>) -> R {
        loop {
            self.gateway.turn();
            let mut bytes = [0; 4096];
            let count = some(self.client.read(&mut bytes));
            if let Ok(Some((frame, _))) = scan(&bytes[..count], MAX_FRAME_LEN) {
                let message = Message::decode(&frame).expect("the gateway's frames are sound");
                return take(&message).unwrap_or_else(|| panic!("{message:?} is no answer to a login"));
            }
        }
    }

    /// So many bursts, each when the one before it is answered.
    pub(crate) fn run(&mut self, bursts: usize) {
        let (report, answers) = (self.report, self.burst * self.report);
        for _ in 0..bursts {
            let burst = self.bursts.pop().expect("enough were made");
            self.client.write_all(&burst).expect("the gateway reads");
            let mut heard = 0;
            while heard < answers {
                self.gateway.turn();
                heard += some(self.client.read(&mut self.heard[heard..]));
            }
            let last = &self.heard[answers - report..heard];
            let last =
                scan(last, MAX_FRAME_LEN).ok().flatten().map(|(frame, length)| (frame.template, length));
            assert_eq!(last, Some((ExecutionReport::TEMPLATE, report)), "nothing is refused");
        }
    }
}

fn some(read: std::io::Result<usize>) -> usize {
    match read {
        Ok(count) if count > 0 => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        other => panic!("the gateway has hung up: {other:?}"),
    }
}

/// Requests, and what they bring about.
struct Asked {
    engine: Engine,
    bursts: Vec<Vec<u8>>,
    answers: VecDeque<Answer>,
    client_seq: u64,
}

impl Asked {
    /// Orders in one burst, their cancels in the next.
    fn of(mut engine: Engine, bursts: usize, burst: usize) -> Self {
        let key = fingerprint(2);
        apply(&mut engine, &Entry::venue(Command::OpenSession { session: SESSION, key }));
        let mut asked = Self { engine, bursts: Vec::new(), answers: VecDeque::new(), client_seq: 0 };
        for _ in 0..bursts / 2 {
            let mut frames = Vec::new();
            let orders: Vec<_> = (0..burst).map(|_| asked.place(&mut frames)).collect();
            asked.bursts.push(std::mem::take(&mut frames));
            orders.into_iter().for_each(|order| asked.cancel(order, &mut frames));
            asked.bursts.push(frames);
        }
        asked
    }

    fn ask(&mut self, command: Command) -> Vec<Event> {
        let entry = Entry { session: SESSION, client_seq: self.client_seq, account: TRADER, command };
        let events = apply(&mut self.engine, &entry);
        self.answers.push_back((self.engine.state().seq, events.clone()));
        events
    }

    fn place(&mut self, frames: &mut Vec<u8>) -> grid_engine::OrderId {
        self.client_seq += 1;
        let price = PRICE + self.client_seq % LEVELS;
        let order = wire::NewOrder {
            client_seq: self.client_seq,
            instrument: MARKET.0,
            side: wire::Side::Buy,
            order_type: wire::OrderType::Limit,
            self_trade: wire::SelfTrade::None,
            price,
            qty: 1,
            ..wire::NewOrder::default()
        };
        order.encode(frames);
        let place = grid_engine::command::NewOrder {
            instrument: MARKET,
            side: Side::Buy,
            kind: grid_engine::command::OrderKind::Limit {
                price: Price(price),
                tif: grid_engine::command::TimeInForce::Gtc,
            },
            qty: Qty(1),
            stp: SelfTrade::Allow,
            label: grid_engine::Label(0),
            tag: String::new(),
            to_consumption: false,
        };
        match &self.ask(Command::Place(place))[..] {
            [Event::OrderOpened(opened), ..] => opened.order.id,
            other => panic!("the order rests: {other:?}"),
        }
    }

    fn cancel(&mut self, order: grid_engine::OrderId, frames: &mut Vec<u8>) {
        self.client_seq += 1;
        wire::CancelOrder { client_seq: self.client_seq, order_id: order.0, ..wire::CancelOrder::default() }
            .encode(frames);
        let told = self.ask(Command::Cancel { order: OrderRef::Id(order) });
        assert!(matches!(told[..], [Event::OrderClosed(_), ..]), "{told:?}");
    }
}

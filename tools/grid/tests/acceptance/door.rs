//! The binary door under a burst and under abuse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer as _, SigningKey};
use grid_client::{Client, Event, Report};
use grid_engine::command::{AccountMode, Command, SupplierProfile};
use grid_engine::{InstrumentId, Qty, Reject, Usd};
use grid_wire::{
    CancelOrder, CancelPolicy, Establish, ExecType, Flow, MAX_FRAME_LEN, MarketDataSubscribe, Message,
    Negotiate, NewOrder, SCHEMA_VERSION, Side, Signature, TerminateCode, TimeInForce, establish_transcript,
    negotiate_transcript, scan,
};
use sha2::{Digest, Sha256};

use crate::books::{self, Books};
use crate::harness::{Account, Operator, Options, Venue, inspect};
use crate::web;

/// A small generator with a seed that a failure can name.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Seeded by GRID_SEED, or anew; printed, so that a failure shows it.
    pub(crate) fn rolled(what: &str) -> Self {
        let seed =
            std::env::var("GRID_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
        println!("{what}: GRID_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Gives an account Units to sell: makes it a supplier, with nobody behind it.
pub(crate) fn stock(operator: &Operator, account: u32, instrument: u16, units: u64) {
    let (instrument, qty) = (InstrumentId(instrument), Qty(units));
    let profile = SupplierProfile { name: "stock".into(), ..SupplierProfile::default() };
    operator.command(account, &Command::RegisterSupplier(Box::new(profile)));
    operator.command(account, &Command::SetCapacity { instrument, capacity: qty });
    operator.command(account, &Command::Issue { instrument, qty });
    operator.command(account, &Command::TransferIssuance { instrument, qty });
}

/// One line of `grid inspect --commands`.
pub(crate) struct Logged {
    pub(crate) seq: u64,
    pub(crate) session: u128,
    pub(crate) client_seq: u64,
    pub(crate) account: u32,
    pub(crate) command: String,
}

impl Logged {
    /// The number that follows `name` in the command's text.
    pub(crate) fn number(&self, name: &str) -> Option<u128> {
        let at = self.command.find(name)? + name.len();
        let digits: String = self.command[at..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

/// Every command of a journal.
pub(crate) fn journal(data: &std::path::Path) -> Vec<Logged> {
    let output =
        crate::harness::grid().args(["inspect", "--commands"]).arg(data).output().expect("grid starts");
    assert!(output.status.success(), "inspect: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // `SEQ at NANOS session HEX #N account A COMMAND`; the summary that follows has other words.
    let line = |line: &str| -> Option<Logged> {
        let mut words = line.splitn(9, ' ');
        let seq = words.next()?.parse().ok()?;
        (words.next()? == "at").then_some(())?;
        let (_, session_word, session) = (words.next()?, words.next()?, words.next()?);
        (session_word == "session").then_some(())?;
        let client_seq = words.next()?.strip_prefix('#')?.parse().ok()?;
        let (_, account, command) = (words.next()?, words.next()?, words.next()?);
        Some(Logged {
            seq,
            session: u128::from_str_radix(session, 16).ok()?,
            client_seq,
            account: account.parse().ok()?,
            command: command.to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// What one session of the burst was told.
#[derive(Default)]
struct Told {
    /// By client sequence number, how often it was answered.
    answers: HashMap<u64, u32>,
    session_seqs: BTreeSet<u64>,
    twice: u64,
    bought: u64,
    sold: u64,
    trades: Vec<u64>,
}

fn listen(mut events: tokio::sync::broadcast::Receiver<Event>, until_seq: u64) -> Told {
    let mut told = Told::default();
    let mut fills: BTreeMap<u64, u64> = BTreeMap::new();
    // The session's last word is the answer to its last request.
    loop {
        match events.blocking_recv().expect("nothing is lost and the session goes on") {
            Event::Report(report) => {
                if !told.session_seqs.insert(report.session_seq()) {
                    told.twice += 1;
                }
                if let Report::Execution(execution) = &report
                    && execution.exec_type == ExecType::Trade
                {
                    match execution.side {
                        Side::Buy => told.bought += execution.last_qty,
                        Side::Sell => told.sold += execution.last_qty,
                    }
                    told.trades.push(execution.trade_id);
                    *fills.entry(execution.order_id).or_default() += execution.last_qty;
                } else if report.client_seq() > 0 {
                    *told.answers.entry(report.client_seq()).or_default() += 1;
                }
                if report.client_seq() == until_seq {
                    return told;
                }
            }
            Event::ReportsLost { from, until } => panic!("reports {from}..{until} are lost"),
            Event::Stopped(error) => panic!("the session stopped: {error}"),
            _ => {}
        }
    }
}

/// Orders of one session.
const PER_SESSION: u64 = 25_000;

#[test]
fn a_burst_of_a_hundred_thousand_orders_from_four_connections_loses_and_duplicates_nothing() {
    let venue = Venue::start(&Options::bare());
    let operator = venue.operator();
    let instrument = venue.instrument("text-prime");
    let mut dice = Dice::rolled("burst");
    let traders: Vec<(u32, Account)> = (0..4)
        .map(|n| {
            let (id, account) =
                operator.open(&format!("burst {n}"), AccountMode::Advanced, Usd::dollars(1_000_000));
            stock(&operator, id, instrument, 200_000);
            (id, account)
        })
        .collect();
    let sessions: Vec<_> = traders
        .iter()
        .map(|(id, account)| {
            let client = venue.client_with(account, |config| {
                config.event_capacity = 1 << 20;
                config.call_timeout = Duration::from_secs(300);
            });
            let (id, seed) = (*id, dice.next());
            let orders = client.clone();
            let events = client.events();
            let listener = std::thread::spawn(move || listen(events, PER_SESSION + 1));
            let burst = std::thread::spawn(move || {
                let mut dice = Dice(seed);
                let pending: Vec<_> = (1..=PER_SESSION)
                    .map(|label| {
                        let side = if dice.below(2) == 0 { Side::Buy } else { Side::Sell };
                        let order = NewOrder {
                            instrument,
                            side,
                            price: 75 + dice.below(11),
                            qty: 1 + dice.below(5),
                            label: u128::from(id) << 64 | u128::from(label),
                            time_in_force: if dice.below(10) == 0 {
                                TimeInForce::Ioc
                            } else {
                                TimeInForce::Gtc
                            },
                            ..NewOrder::default()
                        };
                        orders.submit(order)
                    })
                    .collect();
                let answers: Vec<Report> = pending
                    .into_iter()
                    .map(|answer| {
                        answer.wait().unwrap_or_else(|error| panic!("an order of account {id}: {error}"))
                    })
                    .collect();
                let numbers: Vec<u64> = answers.iter().map(Report::client_seq).collect();
                assert!(
                    numbers.iter().copied().eq(1..=PER_SESSION),
                    "answers stand in the order of the requests"
                );
                let orders: BTreeSet<u64> = answers.iter().map(Report::id).collect();
                assert_eq!(orders.len() as u64, PER_SESSION, "every order has an id of its own");
                orders
            });
            (id, client, burst, listener)
        })
        .collect();
    let (mut ids, mut bursts) = (BTreeSet::new(), Vec::new());
    for (id, client, burst, listener) in sessions {
        let orders = burst.join().expect("all were answered");
        assert_eq!(orders.intersection(&ids).count(), 0);
        ids.extend(orders);
        bursts.push((id, client, listener));
    }
    // Everything has been told once each session has been told of something later.
    let mut all = Told::default();
    let mut by_session = HashMap::new();
    for (id, client, listener) in bursts {
        let none = CancelOrder { label: 1, ..CancelOrder::default() };
        let refused = client.call_blocking(none).expect_err("there is no such order");
        assert_eq!(refused.code(), Some(Reject::UnknownOrder.code()));
        let told = listener.join().expect("the reports");
        assert_eq!(told.twice, 0, "no report twice");
        let (first, last) = (told.session_seqs.first().copied(), told.session_seqs.last().copied());
        assert_eq!(first, Some(1));
        assert_eq!(last, Some(told.session_seqs.len() as u64), "no report is missing");
        assert!(
            (1..=PER_SESSION + 1).all(|seq| told.answers.get(&seq) == Some(&1)),
            "each answered exactly once"
        );
        all.bought += told.bought;
        all.sold += told.sold;
        all.trades.extend(told.trades);
        by_session.insert(client.session(), id);
        client.close();
    }
    assert!(all.trades.len() > 1_000, "they trade with each other");

    let accounts: Vec<Account> =
        books::everybody(&venue).into_iter().chain(traders.into_iter().map(|t| t.1)).collect();
    Books::read(&venue, &accounts).conserve(books::DEMO_DEPOSITS + 4_000_000);
    drop(operator);
    let data = venue.data();
    let (status, place) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let _place = place.expect("its own directory");
    let told = inspect(&data);
    let hash = told["state_hash"].as_str().expect("a hash");
    let snapshots = told["snapshots"].as_array().expect("a list");
    let newest = snapshots.iter().find(|snapshot| snapshot["sequence"] == told["last_sequence"]);
    let newest = newest.unwrap_or_else(|| panic!("the venue leaves a snapshot of its last state: {told}"));
    assert_eq!(newest["state_hash"], hash, "the live state and the replay from the first block");
    let mut numbers: HashMap<u128, Vec<u64>> = HashMap::new();
    let mut placed = 0;
    for logged in journal(&data) {
        if let Some(id) = by_session.get(&logged.session) {
            assert_eq!(logged.account, *id);
            placed += u64::from(logged.command.starts_with("Place("));
            numbers.entry(logged.session).or_default().push(logged.client_seq);
        }
    }
    assert_eq!(placed, 4 * PER_SESSION);
    for numbers in numbers.values() {
        assert!(numbers.iter().copied().eq(1..=PER_SESSION + 1), "the log has every number once, in order");
    }
}

/// A trader who goes on trading while others misbehave; at the end everything he did was answered.
struct Bystander {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Bystander {
    fn start(client: Client, instrument: u16) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let order = NewOrder { instrument, side: Side::Buy, price: 5, qty: 1, ..NewOrder::default() };
                let placed = client.call_blocking(order).expect("a bystander's order");
                let cancel = CancelOrder { order_id: placed.id(), ..CancelOrder::default() };
                client.call_blocking(cancel).expect("a bystander's cancel");
                counted.fetch_add(1, Ordering::AcqRel);
            }
            client.close();
        });
        Self { stop, done, thread }
    }

    /// Waits until so many more of his orders have been answered.
    fn goes_on(&self) {
        let before = self.done.load(Ordering::Acquire);
        crate::harness::until("a bystander's orders", || {
            assert!(!self.thread.is_finished(), "the bystander was hurt");
            if self.done.load(Ordering::Acquire) >= before + 3 { Ok(()) } else { Err("unanswered".into()) }
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the bystander was never hurt");
    }
}

const SHORT_LOGIN: &str = "[sessions]\nlogin_timeout_ms = 400\nmax_connections = 40\n";

/// Sends bytes and reads until the venue closes: what it said, as messages' names and the last Terminate.
fn abused(addr: SocketAddr, bytes: &[u8]) -> (Vec<&'static str>, Option<TerminateCode>) {
    let mut socket = web::connect(addr).expect("the door is open");
    // The venue may hang up in the middle of it.
    let _ = socket.write_all(bytes);
    last_words(&mut socket)
}

fn last_words(socket: &mut TcpStream) -> (Vec<&'static str>, Option<TerminateCode>) {
    let mut said = Vec::new();
    if let Err(error) = socket.read_to_end(&mut said) {
        assert!(
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "the venue neither answers nor hangs up"
        );
    }
    let (mut names, mut code, mut rest) = (Vec::new(), None, said.as_slice());
    while let Ok(Some((frame, length))) = scan(rest, MAX_FRAME_LEN) {
        let message = Message::decode(&frame).expect("the venue speaks its schema");
        if let Message::Terminate(end, _) = message {
            code = Some(end.code);
        }
        names.push(message.name());
        rest = &rest[length..];
    }
    (names, code)
}

#[test]
fn garbage_truncated_oversized_and_slow_bytes_end_their_own_connection_and_nobody_elses() {
    let venue = Venue::start(&Options { config: SHORT_LOGIN, ..Options::bare() });
    let addr = venue.ready.binary_addr;
    let instrument = venue.instrument("text-prime");
    let trader = venue.account("trader");
    let bystander = Bystander::start(venue.client(&trader), instrument);
    bystander.goes_on();
    let mut dice = Dice::rolled("garbage");

    let mut negotiate = Vec::new();
    Negotiate::default().encode(&mut negotiate);
    let mut wrong_magic = negotiate.clone();
    wrong_magic[4] ^= 0xFF;
    let framed = |length: u32| [&length.to_le_bytes()[..], &negotiate[4..]].concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("random bytes", dice.bytes(64 * 1024)),
        ("another kind of frame", wrong_magic),
        ("a frame of four gigabytes", framed(u32::MAX)),
        ("a frame above the limit", framed(MAX_FRAME_LEN as u32 + 1)),
        ("a frame shorter than its header", framed(3)),
        ("an empty frame", framed(0)),
        ("zeros", vec![0; 10_000]),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("a truncated login", negotiate[..negotiate.len() - 1].to_vec()),
        ("half a header", negotiate[..3].to_vec()),
        ("nothing at all", Vec::new()),
        ("a login with a wrong signature, thrice", negotiate.repeat(3)),
    ];
    for (what, bytes) in table {
        let (names, _) = abused(addr, &bytes);
        assert!(names.len() <= 8, "{what}: {names:?}");
        bystander.goes_on();
    }
    // Every message of the schema, from somebody who has not logged in, right and mangled.
    let mut state = dice.next();
    for (name, frame) in grid_wire::samples(&mut state) {
        let (names, code) = abused(addr, &frame);
        assert!(names.first().is_none_or(|first| *first == "Hello"), "{name}: {names:?} {code:?}");
        for _ in 0..3 {
            let mut mangled = frame.clone();
            let at = 6 + dice.below(mangled.len() as u64 - 6) as usize;
            mangled[at] = dice.next() as u8;
            abused(addr, &mangled);
        }
    }
    bystander.goes_on();
    // One byte at a time, each when the one before has arrived, slower than a login may take.
    let mut slow = web::connect(addr).expect("the door is open");
    slow.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let mut hung_up = false;
    for byte in negotiate.iter().cycle() {
        let mut heard = [0; 256];
        match (slow.write_all(std::slice::from_ref(byte)), slow.read(&mut heard)) {
            (Err(_), _) | (_, Ok(0)) => hung_up = true,
            (Ok(()), Err(error))
                if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                hung_up = true;
            }
            _ => {}
        }
        if hung_up {
            break;
        }
    }
    assert!(hung_up);
    bystander.goes_on();
    // More connections than there is room for: told so or closed, and room again when they have gone.
    let crowd: Vec<TcpStream> = (0..60).map(|_| web::connect(addr).expect("the system accepts")).collect();
    let told: Vec<_> = crowd.into_iter().map(|mut socket| last_words(&mut socket)).collect();
    assert!(told.iter().any(|(_, code)| *code == Some(TerminateCode::Full)), "{told:?}");
    bystander.goes_on();
    let newcomer = venue.client(&trader);
    newcomer.close();
    bystander.end();
}

/// A session by hand, so that it can misbehave in the middle.
struct RawSession {
    socket: TcpStream,
    input: Vec<u8>,
}

impl RawSession {
    fn open(addr: SocketAddr, account: &Account, session: u128) -> Self {
        Self::open_with(addr, account, session, CancelPolicy::Keep)
    }

    fn open_with(addr: SocketAddr, account: &Account, session: u128, cancel_policy: CancelPolicy) -> Self {
        let mut raw = Self { socket: web::connect(addr).expect("the door is open"), input: Vec::new() };
        let key = SigningKey::from_bytes(&account.seed);
        let fingerprint: [u8; 32] = Sha256::digest(key.verifying_key().as_bytes()).into();
        let nonce = raw.take(|m| if let Message::Hello(hello) = m { Some(hello.server_nonce) } else { None });
        let timestamp =
            || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        let mut negotiate = Negotiate {
            session,
            client_nonce: rand::random(),
            fingerprint,
            timestamp: timestamp(),
            schema_version: SCHEMA_VERSION,
            client_flow: Flow::Idempotent,
            server_flow: Flow::Recoverable,
            ..Negotiate::default()
        };
        negotiate.signature = Signature(key.sign(&negotiate_transcript(&nonce, &negotiate)).to_bytes());
        raw.say(&Message::Negotiate(negotiate));
        raw.take(|m| matches!(m, Message::NegotiationResponse(_)).then_some(()));
        let mut establish = Establish {
            session,
            client_nonce: rand::random(),
            fingerprint,
            timestamp: timestamp(),
            next_seq: 1,
            keep_alive_ms: 10_000,
            cancel_policy,
            grace_ms: if cancel_policy == CancelPolicy::Keep { 0 } else { 50 },
            schema_version: SCHEMA_VERSION,
            ..Establish::default()
        };
        establish.signature = Signature(key.sign(&establish_transcript(&nonce, &establish)).to_bytes());
        raw.say(&Message::Establish(establish));
        raw.take(|m| matches!(m, Message::EstablishmentAck(_)).then_some(()));
        raw
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut out = Vec::new();
        message.encode(&mut out);
        self.socket.write_all(&out).expect("the venue reads");
    }

    /// The next message that is not a heartbeat.
    fn take<T>(&mut self, pick: impl Fn(&Message<'_>) -> Option<T>) -> T {
        loop {
            while let Some((frame, length)) = scan(&self.input, MAX_FRAME_LEN).expect("frames") {
                let message = Message::decode(&frame).expect("a message of the schema");
                let picked = pick(&message);
                assert!(picked.is_some() || matches!(message, Message::Sequence(_)), "got {message:?}");
                self.input.drain(..length);
                if let Some(picked) = picked {
                    return picked;
                }
            }
            let mut chunk = [0; 4_096];
            let count = self.socket.read(&mut chunk).expect("the venue speaks");
            assert_ne!(count, 0, "the venue hung up");
            self.input.extend_from_slice(&chunk[..count]);
        }
    }
}

#[test]
fn a_session_that_turns_to_garbage_ends_and_can_be_taken_up_again() {
    let venue = Venue::start(&Options::bare());
    let instrument = venue.instrument("text-prime");
    let (_, account) = venue.operator().open("vandal", AccountMode::Advanced, Usd::dollars(100));
    let bystander = Bystander::start(venue.client(&venue.account("trader")), instrument);
    let mut dice = Dice::rolled("a session's garbage");
    let session = 0xABCD;
    let mut rested = 0;
    let order = |client_seq| NewOrder {
        client_seq,
        instrument,
        side: Side::Buy,
        price: 1,
        qty: 1,
        ..NewOrder::default()
    };
    let endings: [Vec<u8>; 4] = [
        dice.bytes(10_000),
        [&(MAX_FRAME_LEN as u32 + 1).to_le_bytes()[..], &[0x50, 0xEB]].concat(),
        {
            let mut out = Vec::new();
            order(99).encode(&mut out);
            // Half a frame, and then another kind of frame in the middle of it.
            let half = out.len() / 2;
            out.truncate(half);
            out.repeat(40)
        },
        {
            let mut out = Vec::new();
            order(99).encode(&mut out);
            // A template that nobody knows.
            out[8] = 0xEE;
            out[9] = 0xEE;
            out
        },
    ];
    for (n, garbage) in (1_u64..).zip(&endings) {
        let mut raw = RawSession::open(venue.ready.binary_addr, &account, session);
        raw.say(&Message::NewOrder(order(n)));
        raw.take(|m| match m {
            Message::ExecutionReport(report) if report.client_seq == n => Some(()),
            // Reports of earlier connections may be told again.
            _ => None,
        });
        rested += 1;
        let _ = raw.socket.write_all(garbage);
        let _ = raw.socket.shutdown(std::net::Shutdown::Write);
        last_words(&mut raw.socket);
        bystander.goes_on();
    }
    // The same session in good hands: its numbers go on, its orders rest.
    let client = venue.client_with(&account, |config| config.session = session);
    let count = venue.signer(&account).get("/orders/count");
    assert_eq!(count["count"], rested, "{count}");
    let placed = client.call_blocking(NewOrder { client_seq: 0, ..order(0) }).expect("a further order");
    assert!(placed.client_seq() > rested, "numbers go on behind {rested}: {placed:?}");
    client.close();
    bystander.end();
}

/// Waits until this account has so many open orders.
fn open_orders(venue: &Venue, account: &Account, wanted: u64) {
    crate::harness::until("open orders", || {
        let count = venue.signer(account).get("/orders/count");
        if count["count"] == wanted { Ok(()) } else { Err(format!("{count} instead of {wanted}")) }
    });
}

#[test]
fn a_lost_connection_takes_its_orders_along_only_where_the_session_asked_for_it() {
    let venue = crate::harness::shared();
    let instrument = venue.instrument("text-prime");
    let order = |client_seq| NewOrder {
        client_seq,
        instrument,
        side: Side::Buy,
        price: 2,
        qty: 1,
        ..NewOrder::default()
    };
    for (policy, left) in [(CancelPolicy::Keep, 3), (CancelPolicy::CancelAfterGrace, 0)] {
        let (_, account) = venue.operator().open("gets lost", AccountMode::Advanced, Usd::dollars(100));
        let mut raw = RawSession::open_with(venue.ready.binary_addr, &account, rand::random(), policy);
        for seq in 1..=3 {
            raw.say(&Message::NewOrder(order(seq)));
            raw.take(|m| matches!(m, Message::ExecutionReport(r) if r.client_seq == seq).then_some(()));
        }
        open_orders(venue, &account, 3);
        drop(raw);
        // An order on another session, entered after the loss, is nobody's business.
        let other = venue.client(&account);
        if policy == CancelPolicy::CancelAfterGrace {
            open_orders(venue, &account, 0);
        }
        other.call_blocking(order(0)).expect("a further order");
        open_orders(venue, &account, left + 1);
        other.close();
    }
}

#[test]
fn a_second_connection_takes_the_session_over_from_the_first() {
    let venue = crate::harness::shared();
    let (_, account) = venue.operator().open("twice", AccountMode::Advanced, Usd::dollars(100));
    let session = rand::random();
    let mut first = RawSession::open(venue.ready.binary_addr, &account, session);
    let second = RawSession::open(venue.ready.binary_addr, &account, session);
    let (_, code) = last_words(&mut first.socket);
    assert_eq!(code, Some(TerminateCode::Superseded));
    drop(second);
}

#[test]
fn a_revoked_signing_key_opens_no_session_and_ends_the_one_it_had() {
    let venue = crate::harness::shared();
    let operator = venue.operator();
    let (id, account) = operator.open("loses a key", AccountMode::Advanced, Usd::dollars(100));
    let spare = Account { seed: rand::random(), ..account.clone() };
    operator.command(id, &Command::AddSigningKey { public_key: spare.public_key(), label: "spare".into() });
    let mut raw = RawSession::open(venue.ready.binary_addr, &spare, rand::random());
    let fingerprint = grid_engine::Fingerprint(Sha256::digest(spare.public_key()).into());
    operator.command(id, &Command::RevokeSigningKey { fingerprint });
    let (names, _) = last_words(&mut raw.socket);
    assert!(names.iter().all(|name| matches!(*name, "Sequence" | "Terminate")), "{names:?}");
    let config = grid_client::Config::new(vec![venue.ready.binary_addr], spare.seed);
    let refused = Client::connect(config).expect_err("the key is revoked");
    assert!(matches!(refused, grid_client::ClientError::Refused(_)), "{refused}");
    venue.client(&account).close();
}

#[test]
fn a_reader_who_never_reads_slows_nobody_down() {
    let venue = Venue::start(&Options::bare());
    let instrument = venue.instrument("text-prime");
    let operator = venue.operator();
    let (_, sleepy) = operator.open("sleeps", AccountMode::Advanced, Usd::dollars(100));
    let (_, busy) = operator.open("is busy", AccountMode::Advanced, Usd::dollars(1_000_000));
    let mut asleep: Vec<RawSession> = (0..4)
        .map(|_| {
            let mut raw = RawSession::open(venue.ready.binary_addr, &sleepy, rand::random());
            raw.say(&Message::MarketDataSubscribe(MarketDataSubscribe {
                request_id: 1,
                instrument,
                depth: 0,
            }));
            raw
        })
        .collect();
    let client = venue.client(&busy);
    let mut told_at = 0;
    for round in 0..20 {
        let placed: Vec<_> = (0..2_000_u64)
            .map(|n| {
                let price = 1 + (n * 7 + round) % 5_000;
                client.submit(NewOrder { instrument, side: Side::Buy, price, qty: 1, ..NewOrder::default() })
            })
            .collect();
        for answer in placed {
            told_at = answer.wait().expect("a busy trader is answered").log_seq().max(told_at);
        }
    }
    // What the sleepers get when they wake is still a whole and true book, or the end of their connection.
    let path = format!("/markets/{}/orderbook?depth=100", venue.market("text-prime").market_id);
    let wanted = crate::harness::until("the HTTP book catches up", || {
        let book = venue.signer(&busy).get(&path);
        if book["sequence"].as_u64() >= Some(told_at) { Ok(book) } else { Err(book["sequence"].to_string()) }
    });
    let mut image = grid_client::BookImage::new(instrument);
    let reader = venue.client(&sleepy);
    let mut events = reader.events();
    reader.subscribe(instrument, 0).expect("a subscription");
    while !image.is_whole() {
        image.apply(&events.blocking_recv().expect("events"));
    }
    let levels = wanted["buy"].as_array().expect("a list");
    let bids: Vec<(u64, u64)> = image.bids().take(100).map(|(price, qty, _)| (price, qty)).collect();
    let told: Vec<(u64, u64)> = levels
        .iter()
        .map(|level| {
            (
                (books::nanos(&level["price"]) / 10_000_000) as u64,
                level["quantity"].as_u64().expect("a number"),
            )
        })
        .collect();
    assert_eq!(bids, told, "the binary feed and the HTTP book show the same");
    for raw in &mut asleep {
        raw.socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut chunk = [0; 65_536];
        let count = raw.socket.read(&mut chunk).expect("bytes, or an end");
        if count > 0 {
            assert!(scan(&chunk[..count], MAX_FRAME_LEN).is_ok(), "frames");
        }
    }
    client.close();
    reader.close();
}

#[test]
fn orders_that_cannot_be_are_rejected_with_their_code() {
    let venue = crate::harness::shared();
    let (_, account) = venue.operator().open("impossible", AccountMode::Advanced, Usd::dollars(1_000));
    let (_, easy) = venue.operator().open("easy at the door", AccountMode::Easy, Usd::dollars(1_000));
    let client = venue.client(&account);
    let instrument = venue.instrument("text-prime");
    let order = NewOrder { instrument, side: Side::Buy, price: 5, qty: 1, ..NewOrder::default() };
    let table = [
        ("quantity zero", NewOrder { qty: 0, ..order }, Reject::InvalidQuantity),
        ("more than the most", NewOrder { qty: 10_001, ..order }, Reject::InvalidQuantity),
        ("overflowing quantity", NewOrder { qty: u64::MAX, ..order }, Reject::InvalidQuantity),
        ("price zero", NewOrder { price: 0, ..order }, Reject::InvalidPrice),
        ("overflowing price", NewOrder { price: u64::MAX, ..order }, Reject::InvalidPrice),
        ("unknown instrument", NewOrder { instrument: 9_999, ..order }, Reject::UnknownInstrument),
        (
            "an instrument that is not open",
            NewOrder { instrument: venue.instrument("code-prime"), ..order },
            Reject::InstrumentNotLive,
        ),
        (
            "dearer than the purse",
            NewOrder { price: 900_000, qty: 10_000, ..order },
            Reject::InsufficientFunds,
        ),
        ("units that nobody gave him", NewOrder { side: Side::Sell, ..order }, Reject::InsufficientUnits),
        ("somebody else's account", NewOrder { account: 1, ..order }, Reject::NotPermitted),
    ];
    for (what, order, reject) in table {
        let error = client.call_blocking(order).expect_err(what);
        assert_eq!(error.code(), Some(reject.code()), "{what}: {error}");
    }
    let rest = client.call_blocking(NewOrder { label: 7, ..order }).expect("a good order");
    let twice = client.call_blocking(NewOrder { label: 7, ..order }).expect_err("a label twice");
    assert_eq!(twice.code(), Some(Reject::DuplicateLabel.code()));
    let foreign = venue.client(&venue.account("trader"));
    for order_id in [rest.id(), u64::MAX, 1] {
        let error =
            foreign.call_blocking(CancelOrder { order_id, ..CancelOrder::default() }).expect_err("not his");
        assert_eq!(error.code(), Some(Reject::UnknownOrder.code()));
    }
    let restricted = venue.client(&easy).call_blocking(order).expect_err("Auto Mode trades for him");
    assert_eq!(restricted.code(), Some(Reject::AutoModeTradingRestricted.code()));
    client.call_blocking(CancelOrder { label: 7, ..CancelOrder::default() }).expect("his own order");
}

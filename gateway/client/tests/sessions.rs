//! The client against a venue that follows a script: what it says, what it repeats, and whom it answers, when
//! connections break at bad moments. The script is on a real socket, so bytes and order are the real ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use ed25519_dalek::{Signature, SigningKey};
use grid_client::{BookImage, Client, ClientError, Config, Event, Refusal, Report};
use grid_wire::{
    BookFlags, BookIncrement, BookSnapshot, CommandReject, CommandReport, Establish, EstablishmentAck,
    EstablishmentCode, EstablishmentReject, ExecutionReport, Hello, Level, MAX_FRAME_LEN, Message,
    NegotiationCode, NegotiationReject, NegotiationResponse, NewOrder, NotApplied, Sequence, Side, Terminate,
    TerminateCode, Throttled, gateway_reject, leader_fields, scan,
};
use tokio::sync::broadcast::Receiver;

#[path = "sessions/quotes.rs"]
mod quotes;

const SEED: [u8; 32] = [9; 32];
const SESSION: u128 = 0xfeed;

/// The venue's side: a listener, and what it has accepted.
struct Venue {
    listener: TcpListener,
}

struct Link {
    socket: TcpStream,
    input: Vec<u8>,
    nonce: [u8; 32],
}

impl Venue {
    fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("loopback has free ports") }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound address")
    }

    fn accept(&self, nonce: u8) -> Link {
        let (socket, _) = self.listener.accept().expect("a client");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout is set");
        let mut link = Link { socket, input: Vec::new(), nonce: [nonce; 32] };
        let hello =
            Hello { server_nonce: link.nonce, schema_version: grid_wire::SCHEMA_VERSION, ..Hello::default() };
        link.say(&Message::Hello(hello));
        link
    }

    /// A connection on which the session has come to life.
    fn live(&self, ack: EstablishmentAck) -> (Link, Establish) {
        let mut link = self.accept(1);
        link.take("Negotiate", |m| matches!(m, Message::Negotiate(_)).then_some(()));
        link.say(&Message::NegotiationResponse(NegotiationResponse {
            session: SESSION,
            log_seq: 1,
            account: 5,
        }));
        let establish = link.establish(ack);
        (link, establish)
    }

    /// A later connection of the same session.
    fn again(&self, ack: EstablishmentAck) -> (Link, Establish) {
        let mut link = self.accept(2);
        let establish = link.establish(ack);
        (link, establish)
    }
}

impl Link {
    fn say(&mut self, message: &Message<'_>) {
        let mut out = Vec::new();
        message.encode(&mut out);
        self.raw(&out);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the client reads");
    }

    /// The next message, which must be what `pick` picks. Heartbeats are passed over.
    fn take<T>(&mut self, wanted: &str, pick: impl Fn(&Message<'_>) -> Option<T>) -> T {
        loop {
            if let Some((frame, length)) = scan(&self.input, MAX_FRAME_LEN).expect("frames") {
                let message = Message::decode(&frame).expect("a message of the schema");
                let picked = pick(&message);
                let beat = matches!(message, Message::Sequence(_));
                assert!(picked.is_some() || beat, "wanted {wanted}, got {message:?}");
                self.input.drain(..length);
                match picked {
                    Some(picked) => return picked,
                    None => continue,
                }
            }
            let mut chunk = [0; 4096];
            let count = self.socket.read(&mut chunk).unwrap_or_else(|e| panic!("wanted {wanted}: {e}"));
            assert_ne!(count, 0, "wanted {wanted}, but the client hung up");
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    fn order(&mut self) -> NewOrder {
        self.take("NewOrder", |m| match m {
            Message::NewOrder(order) => Some(*order),
            _ => None,
        })
    }

    fn establish(&mut self, ack: EstablishmentAck) -> Establish {
        let establish = self.take("Establish", |m| match m {
            Message::Establish(establish) => Some(*establish),
            _ => None,
        });
        self.say(&Message::EstablishmentAck(EstablishmentAck { session: SESSION, account: 5, ..ack }));
        establish
    }

    fn accepted(&mut self, session_seq: u64, order: &NewOrder) {
        let report = ExecutionReport {
            session_seq,
            log_seq: 100 + order.client_seq,
            client_seq: order.client_seq,
            order_id: 100 + order.client_seq,
            label: order.label,
            ..ExecutionReport::default()
        };
        self.say(&Message::ExecutionReport(report));
    }

    fn fill(&mut self, session_seq: u64) {
        self.say(&Message::ExecutionReport(ExecutionReport {
            session_seq,
            trade_id: session_seq,
            ..ExecutionReport::default()
        }));
    }

    /// Waits until the client has hung up.
    fn gone(mut self) {
        let mut chunk = [0; 4096];
        while self.socket.read(&mut chunk).is_ok_and(|count| count > 0) {}
    }
}

fn ack(next_seq: u64, last_client_seq: u64) -> EstablishmentAck {
    EstablishmentAck {
        next_seq,
        oldest_seq: 1,
        last_client_seq,
        keep_alive_ms: 60_000,
        ..EstablishmentAck::default()
    }
}

fn config(venues: &[&Venue]) -> Config {
    Config {
        session: SESSION,
        keep_alive: Duration::from_secs(60),
        ..Config::new(venues.iter().map(|v| v.address()).collect(), SEED)
    }
}

/// The runtime that drives sessions in this run, where no threads of their own do.
fn runtime() -> Option<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let by_task = module_path!().starts_with("by_task");
    by_task.then(|| RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime")))
}

fn connect(config: Config) -> std::thread::JoinHandle<Result<Client, ClientError>> {
    std::thread::spawn(move || match runtime() {
        Some(runtime) => runtime.block_on(Client::connect_here(config)),
        None => Client::connect(config),
    })
}

fn labelled(label: u128) -> NewOrder {
    NewOrder { label, qty: 1, price: 10, ..NewOrder::default() }
}

/// A live session at this venue, its number 1 the next request and report.
fn session(venue: &Venue, config: Config) -> (Client, Link) {
    let client = connect(config);
    let (link, _) = venue.live(ack(1, 0));
    (client.join().unwrap().expect("a session"), link)
}

fn reports(events: &mut Receiver<Event>, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        if let Event::Report(report) = events.blocking_recv().expect("events go on") {
            seen.push(report.session_seq());
        }
    }
    seen
}

#[test]
fn the_login_is_signed_over_the_nonces_and_numbering_goes_on_where_the_venue_stands() {
    let venue = Venue::open();
    let client = connect(config(&[&venue]));
    let mut link = venue.accept(7);
    let key = SigningKey::from_bytes(&SEED).verifying_key();
    let nonce = link.nonce;
    link.take("a signed Negotiate", |m| match m {
        Message::Negotiate(n) => {
            let signed = grid_wire::negotiate_transcript(&nonce, n);
            key.verify_strict(&signed, &Signature::from_bytes(&n.signature.0)).expect("the key's signature");
            Some(())
        }
        _ => None,
    });
    link.say(&Message::NegotiationResponse(NegotiationResponse { session: SESSION, log_seq: 1, account: 5 }));
    let establish = link.establish(ack(40, 17));
    let signed = grid_wire::establish_transcript(&nonce, &establish);
    key.verify_strict(&signed, &Signature::from_bytes(&establish.signature.0)).expect("the key's signature");
    let client = client.join().unwrap().expect("a session");
    assert_eq!((client.account(), client.session()), (5, SESSION));
    let pending = client.submit(labelled(1));
    let order = link.order();
    assert_eq!(order.client_seq, 18);
    link.accepted(40, &order);
    assert_eq!(pending.wait().expect("an answer").log_seq(), 118);
}

#[test]
fn many_in_flight_each_get_their_own_answer() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let pending: Vec<_> = (0..100).map(|label| client.submit(labelled(label))).collect();
    let orders: Vec<NewOrder> = (0..100).map(|_| link.order()).collect();
    assert!(orders.iter().map(|o| o.client_seq).eq(1..=100), "numbers follow the order of the calls");
    for (session_seq, order) in (1..).zip(orders.iter().rev()) {
        link.accepted(session_seq, order);
    }
    for (label, pending) in (0..).zip(pending) {
        match pending.wait().expect("an answer") {
            Report::Execution(report) => {
                assert_eq!((report.label, report.client_seq), (label, label as u64 + 1))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_request_is_sent_however_many_before_it_are_unanswered() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut pending = Vec::new();
    for label in 0..100 {
        pending.push(client.submit(labelled(label)));
        // The venue says nothing, so it is the request alone that makes the client send.
        assert_eq!(link.order().label, label);
    }
}

#[test]
fn what_was_unanswered_is_sent_again_elsewhere_under_the_same_numbers() {
    let (first, second) = (Venue::open(), Venue::open());
    let (client, mut link) = session(&first, config(&[&first, &second]));
    let mut events = client.events();
    let pending: Vec<_> = (1..=3).map(|label| client.submit(labelled(label))).collect();
    let sent: Vec<NewOrder> = (0..3).map(|_| link.order()).collect();
    link.accepted(1, &sent[0]);
    assert_eq!(reports(&mut events, 1), [1], "the first answer has arrived");
    drop(link);
    // The venue applied two; the second's answer got lost with the connection.
    let (mut link, establish) = second.again(ack(3, 2));
    assert_eq!((establish.session, establish.next_seq), (SESSION, 2));
    let missing = link.take("RetransmitRequest", |m| match m {
        Message::RetransmitRequest(request) => Some(*request),
        _ => None,
    });
    assert_eq!((missing.from, missing.count), (2, 1));
    let again = [link.order(), link.order()];
    assert_eq!(again, [sent[1], sent[2]], "same numbers, same bytes, same order");
    link.accepted(2, &sent[1]); // retransmitted
    link.accepted(2, &sent[1]); // and answered from state
    link.accepted(3, &sent[2]);
    let answers: Vec<u64> = pending.into_iter().map(|p| p.wait().expect("an answer").client_seq()).collect();
    assert_eq!(answers, [1, 2, 3]);
    assert_eq!(reports(&mut events, 2), [2, 3], "each report once");
    let fourth = client.submit(labelled(4));
    let order = link.order();
    assert_eq!(order.client_seq, 4, "new requests come after what was sent again");
    link.accepted(4, &order);
    assert!(fourth.wait().is_ok());
}

#[test]
fn a_request_submitted_while_offline_waits_for_the_next_connection() {
    let venue = Venue::open();
    let (client, link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    drop(link);
    while !matches!(events.blocking_recv(), Ok(Event::Disconnected)) {}
    let pending = client.submit(labelled(1));
    let (mut link, _) = venue.again(ack(1, 0));
    let order = link.order();
    assert_eq!(order.client_seq, 1);
    link.accepted(1, &order);
    assert!(pending.wait().is_ok());
}

#[test]
fn refusals_and_lost_numbers_are_told_apart() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut pending = (1..=4).map(|label| client.submit(labelled(label)));
    let calls: Vec<_> = pending.by_ref().collect();
    for _ in 0..4 {
        link.order();
    }
    let reject = |client_seq, session_seq, code| {
        Message::CommandReject(CommandReject { client_seq, session_seq, code, ..CommandReject::default() })
    };
    link.say(&reject(1, 1, 77));
    link.say(&Message::Throttled(Throttled { client_seq: 2, retry_after_ms: 30, ..Throttled::default() }));
    link.say(&Message::NotApplied(NotApplied { from: 3, count: 1 }));
    link.say(&reject(4, 0, gateway_reject::FORGOTTEN));
    let errors: Vec<ClientError> = calls.into_iter().map(|p| p.wait().expect_err("no answer")).collect();
    assert_eq!(errors[0].code(), Some(77));
    assert_eq!(errors[1], ClientError::Throttled { retry_after_ms: 30 });
    assert_eq!(errors[2], ClientError::NotApplied);
    assert_eq!(errors[3], ClientError::AnswerLost);
    assert_eq!(errors.iter().map(ClientError::not_applied).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn reports_missed_while_away_are_asked_for_and_handed_on_once() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    link.fill(1);
    assert_eq!(reports(&mut events, 1), [1]);
    drop(link);
    let (mut link, establish) = venue.again(EstablishmentAck { oldest_seq: 3, ..ack(6, 0) });
    assert_eq!(establish.next_seq, 2);
    let request = link.take("RetransmitRequest", |m| match m {
        Message::RetransmitRequest(request) => Some(*request),
        _ => None,
    });
    assert_eq!((request.from, request.count), (3, 3), "2 is no longer kept");
    link.fill(6); // live, among the retransmitted
    for number in [3, 4, 5, 6, 3] {
        link.fill(number);
    }
    link.fill(7);
    let mut seen = Vec::new();
    let mut lost = None;
    while seen.len() < 5 {
        match events.blocking_recv().expect("events go on") {
            Event::Report(report) => seen.push(report.session_seq()),
            Event::ReportsLost { from, until } => lost = Some((from, until)),
            _ => {}
        }
    }
    assert_eq!(seen, [6, 3, 4, 5, 7]);
    assert_eq!(lost, Some((2, 3)));
}

#[test]
fn a_heartbeat_that_names_a_higher_number_uncovers_a_gap() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    link.say(&Message::Sequence(Sequence { next_seq: 3 }));
    let asked = link.take("RetransmitRequest", |m| match m {
        Message::RetransmitRequest(request) => Some((request.from, request.count)),
        _ => None,
    });
    assert_eq!(asked, (1, 2));
    link.fill(1);
    link.fill(2);
    assert_eq!(reports(&mut events, 2), [1, 2]);
}

#[test]
fn a_venue_that_refuses_is_not_asked_again() {
    let venue = Venue::open();
    let client = connect(config(&[&venue]));
    let mut link = venue.accept(1);
    link.take("Negotiate", |m| matches!(m, Message::Negotiate(_)).then_some(()));
    let code = NegotiationCode::Credentials;
    link.say(&Message::NegotiationReject(NegotiationReject { session: SESSION, code, ..Default::default() }));
    let error = client.join().unwrap().expect_err("refused");
    assert_eq!(error, ClientError::Refused(Refusal::Negotiation { code, engine_code: 0 }));
}

#[test]
fn a_venue_that_is_not_there_is_named() {
    let nowhere = Venue::open().address();
    let config = Config { connect_timeout: Duration::from_millis(50), ..Config::new(vec![nowhere], SEED) };
    match Client::connect(config) {
        Err(ClientError::Io(reason)) => assert!(reason.contains(&nowhere.to_string()), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_does_not_lead_is_left_for_the_next() {
    let (follower, leader) = (Venue::open(), Venue::open());
    let client = connect(config(&[&follower, &leader]));
    let mut link = follower.accept(1);
    link.take("Negotiate", |m| matches!(m, Message::Negotiate(_)).then_some(()));
    link.say(&Message::NegotiationResponse(NegotiationResponse { session: SESSION, log_seq: 1, account: 5 }));
    link.take("Establish", |m| matches!(m, Message::Establish(_)).then_some(()));
    let code = EstablishmentCode::NotLeader;
    link.say(&Message::EstablishmentReject(EstablishmentReject {
        session: SESSION,
        code,
        ..Default::default()
    }));
    // Negotiated is negotiated: the leader has it from the log.
    let _link = leader.again(ack(1, 0));
    assert!(client.join().unwrap().is_ok());
}

#[test]
fn the_leader_that_a_node_names_is_tried_next_though_nobody_configured_it() {
    let (follower, leader) = (Venue::open(), Venue::open());
    let (leader_ip, leader_port) = leader_fields(Some(leader.address()));
    let client = connect(config(&[&follower]));
    let mut link = follower.accept(1);
    link.take("Negotiate", |m| matches!(m, Message::Negotiate(_)).then_some(()));
    let code = NegotiationCode::NotLeader;
    let reject = NegotiationReject { session: SESSION, code, leader_ip, leader_port, ..Default::default() };
    link.say(&Message::NegotiationReject(reject));
    let (first, _) = leader.live(ack(1, 0));
    let client = client.join().unwrap().expect("a session");
    // The leader goes; the follower still names it, and is asked no more often than it may be.
    let pending = client.submit(labelled(1));
    drop((first, leader));
    let mut link = follower.accept(2);
    link.take("Establish", |m| matches!(m, Message::Establish(_)).then_some(()));
    let code = EstablishmentCode::NotLeader;
    let reject = EstablishmentReject { session: SESSION, code, leader_ip, leader_port, ..Default::default() };
    link.say(&Message::EstablishmentReject(reject));
    link.gone();
    let (mut link, _) = follower.again(ack(1, 0));
    let order = link.order();
    assert_eq!((order.client_seq, order.label), (1, 1));
    link.accepted(1, &order);
    assert!(pending.wait().is_ok());
}

#[test]
fn a_leader_that_leads_no_longer_costs_its_callers_nothing_but_time() {
    let (first, second) = (Venue::open(), Venue::open());
    let (client, mut link) = session(&first, config(&[&first]));
    let mut events = client.events();
    let pending: Vec<_> = (1..=3).map(|label| client.submit(labelled(label))).collect();
    let sent: Vec<NewOrder> = (0..3).map(|_| link.order()).collect();
    link.accepted(1, &sent[0]);
    let (leader_ip, leader_port) = leader_fields(Some(second.address()));
    let mut out = Vec::new();
    Terminate { code: TerminateCode::NotLeader, leader_ip, leader_port, ..Terminate::default() }
        .encode(b"", &mut out);
    link.raw(&out);
    link.gone();
    // The second was committed by the old leader after its last word.
    let (mut link, establish) = second.again(ack(3, 2));
    assert_eq!(establish.next_seq, 2);
    link.take("RetransmitRequest", |m| matches!(m, Message::RetransmitRequest(_)).then_some(()));
    assert_eq!([link.order(), link.order()], [sent[1], sent[2]]);
    for (session_seq, order) in [(2, &sent[1]), (2, &sent[1]), (3, &sent[2]), (3, &sent[2])] {
        link.accepted(session_seq, order);
    }
    let answers: Vec<u64> = pending.into_iter().map(|p| p.wait().expect("an answer").client_seq()).collect();
    assert_eq!(answers, [1, 2, 3]);
    assert_eq!(reports(&mut events, 3), [1, 2, 3], "each report once");
}

#[test]
fn a_node_that_takes_connections_and_says_nothing_is_left_for_the_next() {
    // Stopped, or hung: the system still accepts for it.
    let (stopped, leader) = (Venue::open(), Venue::open());
    let client = connect(Config { silence: Duration::from_millis(50), ..config(&[&stopped, &leader]) });
    let (_link, _) = leader.live(ack(1, 0));
    assert!(client.join().unwrap().is_ok());
}

#[test]
fn a_heartbeat_while_requests_wait_to_be_sent_again_opens_no_gap() {
    let venue = Venue::open();
    let short = Config { keep_alive: Duration::from_millis(5), ..config(&[&venue]) };
    let (client, mut link) = session(&venue, short);
    let pending: Vec<_> = (1..=3).map(|label| client.submit(labelled(label))).collect();
    let sent: Vec<NewOrder> = (0..3).map(|_| link.order()).collect();
    drop(link);
    // One at once and ten a second: there is time for heartbeats between them.
    let slow = EstablishmentAck { requests_per_second: 10, requests_burst: 1, ..ack(1, 0) };
    let (mut link, _) = venue.again(slow);
    for (session_seq, order) in (1..).zip(&sent) {
        loop {
            let seen = link.take("an order or a heartbeat", |m| match m {
                Message::NewOrder(order) => Some(Ok(*order)),
                Message::Sequence(beat) => Some(Err(beat.next_seq)),
                _ => None,
            });
            match seen {
                Ok(again) => break assert_eq!(again, *order),
                Err(next_seq) => assert_eq!(next_seq, order.client_seq),
            }
        }
        link.accepted(session_seq, order);
    }
    assert!(pending.into_iter().all(|p| p.wait().is_ok()));
}

#[test]
fn a_node_of_an_older_version_is_spoken_to_in_its_own() {
    let venue = Venue::open();
    let client = connect(config(&[&venue]));
    let (socket, _) = venue.listener.accept().expect("a client");
    let mut link = Link { socket, input: Vec::new(), nonce: [3; 32] };
    link.say(&Message::Hello(Hello { server_nonce: link.nonce, schema_version: 1, ..Hello::default() }));
    link.take("Negotiate of version 1", |m| {
        matches!(m, Message::Negotiate(n) if n.schema_version == 1).then_some(())
    });
    link.say(&Message::NegotiationResponse(NegotiationResponse { session: SESSION, log_seq: 1, account: 5 }));
    assert_eq!(link.establish(ack(1, 0)).schema_version, 1);
    let client = client.join().unwrap().expect("a session");
    // What it does not know is never sent; what came before and after it is.
    let before = client.submit(labelled(1));
    let unknown = client.call_blocking(grid_wire::QuoteProtection::default()).expect_err("not served");
    assert_eq!(unknown, ClientError::NotServed { version: 1 });
    assert!(unknown.not_applied());
    let after = client.submit(labelled(2));
    for number in [1, 2] {
        let order = link.order();
        assert_eq!((order.client_seq, order.label), (number, number.into()));
        link.accepted(number, &order);
    }
    assert!(before.wait().is_ok() && after.wait().is_ok());
}

#[test]
fn a_session_taken_over_by_somebody_else_ends_and_says_so() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let pending = client.submit(labelled(1));
    link.order();
    let mut out = Vec::new();
    Terminate { code: TerminateCode::Superseded, ..Terminate::default() }
        .encode(b"another connection", &mut out);
    link.raw(&out);
    let stopped = ClientError::Refused(Refusal::Terminated(TerminateCode::Superseded));
    assert_eq!(pending.wait().expect_err("ended"), stopped);
    link.gone();
    assert_eq!(client.call_blocking(labelled(2)).expect_err("ended"), ClientError::Closed);
}

#[test]
fn bytes_that_are_no_protocol_only_cost_the_connection() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let pending = client.submit(labelled(1));
    let order = link.order();
    link.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    link.gone();
    let (mut link, _) = venue.again(ack(1, 0));
    assert_eq!(link.order(), order);
    link.accepted(1, &order);
    assert!(pending.wait().is_ok());
}

#[test]
fn window_and_queue_are_bounded_and_full_is_an_answer() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, Config { window: 2, queue: 3, ..config(&[&venue]) });
    let mut pending: Vec<_> = (1..=2).map(|label| client.submit(labelled(label))).collect();
    let first = link.order();
    let second = link.order();
    // Two in flight; up to two more wait in the thread and three in the queue, then it is full.
    let busy = (3..100).map(|label| client.submit(labelled(label))).find_map(|p| {
        let mut p = p;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(&mut p).poll(&mut cx) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => {
                pending.push(p);
                None
            }
        }
    });
    assert_eq!(busy, Some(Err(ClientError::Busy)));
    link.accepted(1, &first);
    assert_eq!(link.order().client_seq, 3, "an answer makes room for one");
    link.accepted(2, &second);
    assert!(pending.drain(..2).all(|p| p.wait().is_ok()));
}

#[test]
fn an_answer_that_does_not_come_is_a_timeout_that_says_whether_it_was_sent() {
    let venue = Venue::open();
    let short = Config { window: 1, call_timeout: Duration::from_millis(30), ..config(&[&venue]) };
    let (client, _link) = session(&venue, short);
    let (sent, unsent) = (client.submit(labelled(1)), client.submit(labelled(2)));
    assert_eq!(sent.wait(), Err(ClientError::Timeout { sent: true }));
    // The second had the same time to go, so it never left.
    assert!(matches!(unsent.wait(), Err(ClientError::Timeout { .. })));
}

#[test]
fn an_idle_client_keeps_the_session_alive_and_leaves_a_venue_that_is_silent() {
    let venue = Venue::open();
    let client = connect(Config { keep_alive: Duration::from_millis(20), ..config(&[&venue]) });
    let (mut link, _) = venue.live(EstablishmentAck { keep_alive_ms: 100, ..ack(1, 0) });
    let client = client.join().unwrap().expect("a session");
    let next = link.take("Sequence", |m| match m {
        Message::Sequence(beat) => Some(beat.next_seq),
        _ => None,
    });
    assert_eq!(next, 1);
    // Three intervals without a word from us, and it looks elsewhere: here again.
    let (_link, establish) = venue.again(ack(1, 0));
    assert_eq!(establish.session, client.session());
}

#[test]
fn closing_says_goodbye() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let other = client.clone();
    let closing = std::thread::spawn(move || client.close());
    link.take("Terminate", |m| {
        matches!(m, Message::Terminate(t, _) if t.code == TerminateCode::Finished).then_some(())
    });
    drop(link);
    closing.join().expect("closed");
    assert_eq!(other.call_blocking(labelled(1)), Err(ClientError::Closed));
}

#[test]
fn dropping_the_last_handle_ends_the_connection() {
    let venue = Venue::open();
    let (client, link) = session(&venue, config(&[&venue]));
    drop(client);
    link.gone();
}

#[test]
fn directory_requests_carry_their_payload_and_its_limit() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let directory = |payload| grid_client::Request::Directory { account: 8, payload };
    let pending = client.submit(directory(vec![1, 2, 3]));
    let seen = link.take("DirectoryRequest", |m| match m {
        Message::DirectoryRequest(request, payload) => {
            Some((request.client_seq, request.account, payload.to_vec()))
        }
        _ => None,
    });
    assert_eq!(seen, (1, 8, vec![1, 2, 3]));
    let report = CommandReport { session_seq: 1, client_seq: 1, id: 44, ..CommandReport::default() };
    link.say(&Message::CommandReport(report));
    assert_eq!(pending.wait().expect("an answer").id(), 44);
    let too_long = client.call_blocking(directory(vec![0; grid_wire::MAX_PAYLOAD_LEN + 1]));
    assert!(matches!(too_long, Err(ClientError::TooLong { .. })));
}

#[test]
fn market_data_builds_a_book_and_is_subscribed_again_after_a_break() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    let mut book = BookImage::new(4);
    client.subscribe(4, 10).expect("a live client");
    let level = |side, price, qty| Level { side, price, qty, orders: 1 };
    let whole = BookFlags::none().with(BookFlags::FIRST, true).with(BookFlags::LAST, true);
    for round in 0..2_u64 {
        let asked = link.take("MarketDataSubscribe", |m| match m {
            Message::MarketDataSubscribe(m) => Some((m.instrument, m.depth)),
            _ => None,
        });
        assert_eq!(asked, (4, 10));
        let mut out = Vec::new();
        let snapshot = BookSnapshot {
            instrument: 4,
            channel_seq: 10,
            log_seq: 50,
            flags: whole,
            ..BookSnapshot::default()
        };
        snapshot
            .encode(&[level(Side::Buy, 99, 5), level(Side::Buy, 98, 7), level(Side::Sell, 101, 2)], &mut out);
        let end = BookFlags::END_OF_EVENT;
        let change = BookIncrement { instrument: 4, channel_seq: 10, log_seq: 50, flags: end, match_time: 0 };
        change.encode(&[level(Side::Buy, 99, 1)], &mut out); // already in the snapshot
        let change = BookIncrement { channel_seq: 11, log_seq: 51 + round, ..change };
        change.encode(&[level(Side::Buy, 99, 0), level(Side::Sell, 101, 3)], &mut out);
        link.raw(&out);
        while book.log_seq() < 51 + round {
            book.apply(&events.blocking_recv().expect("events go on"));
        }
        assert!(book.is_whole());
        assert_eq!(book.bids().collect::<Vec<_>>(), [(98, 7, 1)]);
        assert_eq!(book.asks().collect::<Vec<_>>(), [(101, 3, 1)]);
        if round == 0 {
            drop(link);
            link = venue.again(ack(1, 0)).0;
        }
    }
}

#[test]
fn async_callers_share_the_session() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let server = std::thread::spawn(move || {
        for session_seq in 1..=20 {
            let order = link.order();
            link.accepted(session_seq, &order);
        }
        link
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let calls: Vec<_> = (0..20).map(|label| client.submit(labelled(label))).collect();
        for (label, call) in (0..).zip(calls) {
            match call.await.expect("an answer") {
                Report::Execution(report) => assert_eq!(report.label, label),
                other => panic!("{other:?}"),
            }
        }
    });
    drop(server.join());
}

//! `kill -9` at fifty random moments under load. Clients live through all of it: their sessions go on under the same
//! numbers. At the end the journal is compared with what they were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use grid_client::{Client, ClientError, Event};
use grid_engine::Usd;
use grid_engine::command::AccountMode;
use grid_wire::{CancelOrder, NewOrder, Side};
use serde_json::json;

use crate::books::{self, Books};
use crate::door::{Dice, Logged, journal, stock};
use crate::harness::{Options, Place, Venue, inspect};
use crate::web;

const KILLS: u64 = 50;
/// Where the venue listens, and its suppliers behind it.
const PORTS: u16 = 24;
/// Requests that one session has in flight.
const IN_FLIGHT: usize = 16;
/// Many snapshots and many segments, so that every start is from a snapshot and a piece of the log.
const BUSY_LOG: &str = "[log]\nsegment_bytes = 1048576\nsnapshot_every_commands = 500\n";
/// Words of every answer.
const COMPLETION: u64 = 6;

/// What the clients share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// Answers to anybody since the start.
    acked: AtomicU64,
    /// Completions delivered whole.
    completed: AtomicU64,
    /// How often the venue became ready.
    starts: Mutex<u64>,
    started: Condvar,
}

impl Load {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn ready(&self) {
        *self.starts.lock().expect("no panic holds it") += 1;
        self.started.notify_all();
    }

    /// Waits until the venue has been started once more than `seen` times, or everything ends.
    fn wait_for_start(&self, seen: u64) -> u64 {
        let starts = self.starts.lock().expect("no panic holds it");
        let waited = self.started.wait_timeout_while(starts, Duration::from_millis(200), |starts| {
            *starts <= seen && !self.stopped()
        });
        *waited.expect("no panic holds it").0
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
struct Acked {
    label: u128,
    log_seq: u64,
    client_seq: u64,
    placed: bool,
}

/// One session's life: orders and cancels in batches, each of which must get its one answer, whatever happens.
fn trade(load: &Load, client: &Client, instrument: u16, seed: u64, tag: u128) -> Vec<Acked> {
    let mut dice = Dice(seed);
    let mut acked: Vec<Acked> = Vec::new();
    let mut label = tag << 64;
    let mut open: Vec<u128> = Vec::new();
    while !load.stopped() {
        let batch: Vec<_> = (0..1 + dice.below(IN_FLIGHT as u64))
            .map(|_| {
                if open.len() > 20 && dice.below(3) == 0 {
                    let label = open.swap_remove(dice.below(open.len() as u64) as usize);
                    (label, false, client.submit(CancelOrder { label, ..CancelOrder::default() }))
                } else {
                    label += 1;
                    let side = if dice.below(2) == 0 { Side::Buy } else { Side::Sell };
                    let (price, qty) = (60 + dice.below(5), 1 + dice.below(3));
                    let order = NewOrder { instrument, side, price, qty, label, ..NewOrder::default() };
                    (label, true, client.submit(order))
                }
            })
            .collect();
        for (label, placed, answer) in batch {
            match answer.wait() {
                Ok(report) => {
                    acked.push(Acked {
                        label,
                        log_seq: report.log_seq(),
                        client_seq: report.client_seq(),
                        placed,
                    });
                    if placed {
                        open.push(label);
                    }
                }
                // An order that traded away can't be cancelled; the refusal is an answer like any other.
                Err(ClientError::Rejected(reject)) if !placed => {
                    let (log_seq, client_seq) = (reject.log_seq, reject.client_seq);
                    acked.push(Acked { label, log_seq, client_seq, placed });
                }
                Err(error) => panic!("session {tag}: label {label:x}: {error}"),
            }
            load.acked.fetch_add(1, Ordering::AcqRel);
        }
    }
    acked
}

/// A completion that a client has seen whole.
#[derive(Clone, Copy, Debug)]
struct Whole {
    /// Tokens of its prompt; no other has as many.
    prompt: u64,
    /// What the venue called it.
    request: u128,
}

/// Asks for completions one after the other, each with a prompt length that nobody else has. Gives those of whole answers.
fn consume(load: &Load, url: &str, key: &str, first: u64, step: u64) -> Vec<Whole> {
    let mut whole = Vec::new();
    let mut seen = 0;
    for n in (0..).map(|n| first + n * step) {
        if load.stopped() {
            break;
        }
        let stream = n % 3 != 0;
        let mut body = json!({
            "model": "text-standard",
            "messages": [{"role": "user", "content": grid_suppliers::filler(n)}],
            "metadata": {"simulate_completion_tokens": COMPLETION.to_string()},
            "max_tokens": 50,
        });
        if stream {
            body["stream"] = json!(true);
        }
        match web::chat(url, key, &body) {
            Ok(answer) if answer.status == 200 && answer.whole && (!stream || answer.events().1) => {
                let name = answer.header("x-grid-request-id").expect("every answer has a name");
                let number = name.strip_prefix("req_").expect("it is that of a request");
                let request = u128::from_str_radix(number, 16).expect("a number in hex");
                whole.push(Whole { prompt: n, request });
                load.completed.fetch_add(1, Ordering::AcqRel);
                load.acked.fetch_add(1, Ordering::AcqRel);
            }
            // Cut off, or refused while the venue comes up or its suppliers are not there yet.
            Ok(answer) => assert!(
                matches!(answer.status, 200 | 402 | 500 | 502 | 503),
                "{} {}",
                answer.status,
                answer.text()
            ),
            // Nobody listens: wait for the next start.
            Err(_) => seen = load.wait_for_start(seen),
        }
    }
    whole
}

/// Every report of the session, each number once and none missing.
fn reports(mut events: tokio::sync::broadcast::Receiver<Event>) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    while let Ok(event) = events.blocking_recv() {
        match event {
            Event::Report(report) => {
                assert!(seen.insert(report.session_seq()), "report {} twice", report.session_seq())
            }
            Event::ReportsLost { from, until } => panic!("reports {from}..{until} are lost"),
            Event::Stopped(ClientError::Closed) => break,
            Event::Stopped(error) => panic!("the session stopped: {error}"),
            _ => {}
        }
    }
    seen
}

#[test]
fn fifty_kills_under_load_lose_nothing_that_was_acknowledged_and_repeat_nothing() {
    let mut dice = Dice::rolled("fifty kills");
    let place = Place::new();
    let port_base = grid_ports::in_a_row(PORTS).expect("free ports");
    let options = Options { port_base, config: BUSY_LOG, ..Options::quiet() };
    let start = || Venue::start_at(&place, &options).unwrap_or_else(|printed| panic!("no venue:\n{printed}"));
    let mut venue = start();
    let instrument = venue.instrument("text-prime");

    let operator = venue.operator();
    let (mut traders, mut accounts) = (Vec::new(), Vec::new());
    for n in 0..2 {
        let (id, account) =
            operator.open(&format!("crash {n}"), AccountMode::Advanced, Usd::dollars(1_000_000));
        stock(&operator, id, instrument, 500_000);
        traders.push((id, account.clone()));
        accounts.push(account);
    }
    let (_, customer) = operator.open("crash customer", AccountMode::Easy, Usd::dollars(1_000));
    accounts.push(customer.clone());
    drop(operator);

    let load = Arc::new(Load::default());
    load.ready();
    let sessions: Vec<_> = (1_u128..)
        .zip(&traders)
        .map(|(tag, (_, account))| {
            let client = venue.client_with(account, |config| {
                config.session = dice.next().into();
                config.call_timeout = Duration::from_secs(600);
                config.event_capacity = 1 << 20;
            });
            let (events, session) = (client.events(), client.session());
            let listener = std::thread::spawn(move || reports(events));
            let (load, seed) = (Arc::clone(&load), dice.next());
            let thread = std::thread::spawn(move || {
                let acked = trade(&load, &client, instrument, seed, tag);
                client.close();
                acked
            });
            (session, thread, listener)
        })
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|n| {
            let (load, url, key) =
                (Arc::clone(&load), venue.ready.inference_url.clone(), customer.consumption_key.clone());
            std::thread::spawn(move || consume(&load, &url, &key, 10 + n, 2))
        })
        .collect();

    let mut position = 0;
    for kill in 1..=KILLS {
        // Some moments are right after the start, most are in the middle of the load.
        let more = if kill % 10 == 0 { 0 } else { dice.below(400) };
        let target = load.acked.load(Ordering::Acquire) + more;
        crate::harness::until("load between two kills", || {
            assert!(
                sessions.iter().all(|(_, thread, _)| !thread.is_finished()),
                "a session ended\n{}",
                place.printed()
            );
            assert!(
                consumers.iter().all(|thread| !thread.is_finished()),
                "a consumer ended\n{}",
                place.printed()
            );
            match load.acked.load(Ordering::Acquire) {
                acked if acked >= target => Ok(()),
                acked => {
                    Err(format!("{acked} of {target} answers after kill {}\n{}", kill - 1, place.printed()))
                }
            }
        });
        venue.kill();
        if kill % 10 == 5 {
            let told = inspect(&place.data());
            let now = told["last_sequence"].as_u64().expect("a position");
            assert!(now > position, "the log has grown: {told}");
            position = now;
        }
        // Some die again while they come up: in the replay, before the doors open, with them half open.
        for words in ["data directory", "replayed", "participants"].iter().take((kill % 4) as usize) {
            Venue::kill_while_starting(&place, &options, words);
        }
        venue = start();
        load.ready();
    }
    // Some more of everything, on a venue that stays up.
    let target = load.completed.load(Ordering::Acquire) + 4;
    crate::harness::until("completions after the last kill", || {
        let completed = load.completed.load(Ordering::Acquire);
        if completed >= target { Ok(()) } else { Err(format!("{completed} of {target}")) }
    });
    load.stop.store(true, Ordering::Release);
    let mut told: HashMap<u128, Vec<Acked>> = HashMap::new();
    for (session, thread, listener) in sessions {
        told.insert(session, thread.join().expect("every request was answered"));
        let seen = listener.join().expect("the reports");
        let (first, last) = (seen.first().copied(), seen.last().copied());
        assert_eq!(
            first.zip(last).map(|(first, last)| last - first + 1),
            Some(seen.len() as u64),
            "no report is missing"
        );
    }
    let whole: Vec<Vec<Whole>> =
        consumers.into_iter().map(|thread| thread.join().expect("a consumer")).collect();
    let answers: usize = told.values().map(Vec::len).sum();
    let completions: usize = whole.iter().map(Vec::len).sum();
    println!("{answers} answers at the door, {completions} completions, {KILLS} kills");

    accounts.extend(books::everybody_at(&venue, &place.data()));
    Books::read(&venue, &accounts).conserve(books::DEMO_DEPOSITS + 2_000_000 + 1_000);
    let (status, _) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}\n{}", place.printed());

    let replayed = inspect(&place.data());
    let hash = &replayed["state_hash"];
    let newest = replayed["snapshots"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|s| s["sequence"] == replayed["last_sequence"]);
    let newest = newest.unwrap_or_else(|| panic!("a snapshot of the last state: {replayed}"));
    let printed = std::fs::read_to_string(place.path().join("printed")).expect("what was printed");
    let from_snapshots = printed.matches("commands replayed from the snapshot").count();
    assert!(from_snapshots as u64 > KILLS / 2, "{from_snapshots} starts were from a snapshot");
    assert_eq!(&newest["state_hash"], hash, "fifty times recovered, and replayed from the first block");
    let log = journal(&place.data());
    assert_eq!(Some(log.len() as u64), replayed["commands"].as_u64());
    sessions_agree(&log, &told);
    let lapsed: usize = whole.iter().map(|of_one| completions_are_settled(&log, of_one)).sum();
    println!("{lapsed} completions that a kill kept from being billed");
}

/// The log has every acknowledged request where the answer said, and no placement that the client does not know of.
/// A request may be in the log more than once, sent again after a kill; then it is the same each time, and only the
/// first one is carried out, which the replayed state and everybody's balances prove.
fn sessions_agree(log: &[Logged], told: &HashMap<u128, Vec<Acked>>) {
    let by_seq: BTreeMap<u64, &Logged> = log.iter().map(|logged| (logged.seq, logged)).collect();
    for (session, acked) in told {
        let mut requests: BTreeMap<u64, &Logged> = BTreeMap::new();
        for logged in log.iter().filter(|logged| logged.session == *session) {
            let newest = requests.last_key_value().map_or(0, |(number, _)| *number);
            if let Some(first) = requests.get(&logged.client_seq) {
                assert_eq!(first.command, logged.command, "number {} of {session:x}", logged.client_seq);
            } else {
                assert!(
                    logged.client_seq > newest,
                    "number {} of {session:x} after {newest}",
                    logged.client_seq
                );
                requests.insert(logged.client_seq, logged);
            }
        }
        let mut labels: BTreeSet<u128> = BTreeSet::new();
        for logged in requests.values().filter(|logged| logged.command.starts_with("Place(")) {
            let label = logged.number("label: Label(").expect("a label");
            assert!(labels.insert(label), "label {label:x} was placed twice");
        }
        for answer in acked {
            let logged =
                by_seq.get(&answer.log_seq).unwrap_or_else(|| panic!("{answer:?} is not in the log"));
            assert_eq!((logged.session, logged.client_seq), (*session, answer.client_seq), "{answer:?}");
            assert_eq!(
                logged.seq, requests[&answer.client_seq].seq,
                "the answer is about the request's first time"
            );
            let label = if answer.placed { "label: Label(" } else { "Label(Label(" };
            assert_eq!(logged.number(label), Some(answer.label), "{answer:?}: {}", logged.command);
        }
        let placed: BTreeSet<u128> = acked.iter().filter(|a| a.placed).map(|a| a.label).collect();
        assert_eq!(labels, placed, "the log and the client know the same orders");
    }
}

/// Every completion that a consumer has seen whole was settled, once, with its own counts; but for one that was the last thing it
/// saw before a kill. A settlement is on its way when the client sees the end, and may die on it: then the reservation lapses and nobody
/// pays. Gives how many those were.
fn completions_are_settled(log: &[Logged], whole: &[Whole]) -> usize {
    let mut settled: HashMap<(u128, u128), u64> = HashMap::new();
    for logged in log.iter().filter(|logged| logged.command.starts_with("Settle")) {
        let prompt = logged.number("prompt_tokens: Tokens(").expect("a count");
        let completion = logged.number("completion_tokens: Tokens(").expect("a count");
        *settled.entry((prompt, completion)).or_default() += 1;
    }
    let reserves = log.iter().filter(|logged| logged.command.starts_with("Reserve"));
    let reserved: HashMap<u128, u64> =
        reserves.map(|logged| (logged.number("request: ").expect("its name"), logged.seq)).collect();
    // Whoever comes up connects its tier anew.
    let starts: BTreeSet<u64> = log
        .iter()
        .filter(|logged| logged.command.starts_with("Establish"))
        .map(|logged| logged.seq)
        .collect();
    let mut lapsed = 0;
    for (nth, completion) in whole.iter().enumerate() {
        let count =
            settled.get(&(u128::from(completion.prompt), u128::from(COMPLETION))).copied().unwrap_or(0);
        let next = whole.get(nth + 1).map(|next| reserved[&next.request]);
        let killed =
            next.is_some_and(|next| starts.range(reserved[&completion.request]..next).next().is_some());
        assert!(
            count == 1 || (count == 0 && killed),
            "{completion:?} was settled {count} times, and {} followed",
            if killed { "a start" } else { "no start" }
        );
        lapsed += usize::from(count == 0);
    }
    lapsed
}

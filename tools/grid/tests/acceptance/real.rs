//! Real input: a production service's trace of requests, and an exchange's recorded order flow.

use grid_engine::command::{AccountMode, Command};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{Price, Qty, Usd};
use grid_replay::door::Door;
use grid_replay::flow::{self, OrderFlow};
use grid_replay::trace::{TraceConfig, TraceSummary, read_trace, replay_trace};
use grid_replay::{BOOK_FILE, MESSAGE_FILE, TRACE_FILE, data_dir};
use serde_json::{Value, json};

use crate::books::{self, Books};
use crate::door::stock;
use crate::harness::{Account, Options, Venue, inspect};
use crate::web;

/// Requests of the slice: the first minutes, with some of the busiest seconds.
const ROWS: usize = 400;

/// What all suppliers have produced since their start, by their own count, and calls that were answered with an error.
fn produced(venue: &Venue) -> (u64, u64) {
    let mut sum = (0, 0);
    for supplier in &venue.ready.suppliers {
        let (addr, _) = web::split(&supplier.control_url);
        let stats: Value =
            web::send(addr, "GET", "/stats", &[], b"").expect("the control endpoint answers").json();
        for outcome in ["completed", "died", "cancelled"] {
            for tokens in ["prompt_tokens", "completion_tokens"] {
                sum.0 += stats[outcome][tokens].as_u64().expect("a count");
            }
        }
        sum.1 += stats["refused"]["requests"].as_u64().expect("a count");
        assert_eq!(stats["in_flight"], 0, "{stats}");
    }
    sum
}

fn set_faults(venue: &Venue, faults: &Value) {
    for supplier in &venue.ready.suppliers {
        let (addr, path) = web::split(&supplier.control_url);
        let answer =
            web::send(addr, "POST", path, &[], faults.to_string().as_bytes()).expect("control answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn run(venue: &Venue, customer: &Account, from: usize) -> Option<TraceSummary> {
    let Some(dir) = data_dir() else {
        println!("skipped: the trace is not at hand (../shared/data, or GRID_DATA)");
        return None;
    };
    let rows = read_trace(&dir.join(TRACE_FILE), from, ROWS).expect("the trace reads");
    assert_eq!(rows.len(), ROWS);
    let config = TraceConfig {
        base_url: venue.ready.inference_url.clone(),
        key: customer.consumption_key.clone(),
        model: "text-standard".into(),
        speed: 20.0,
        retries: 5,
        ..TraceConfig::default()
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let summary = runtime.block_on(replay_trace(&rows, &config));
    println!("{summary:?}");
    Some(summary)
}

#[test]
fn the_production_trace_is_billed_to_the_token_with_healthy_and_with_failing_suppliers() {
    let venue = Venue::start(&Options::default());
    let (_, customer) = venue.operator().open("trace", AccountMode::Easy, Usd::dollars(1_000));
    let mut billed = 0;
    for (from, faults) in [(0, json!({})), (4_000, json!({"error_rate": 0.1}))] {
        set_faults(&venue, &faults);
        let Some(summary) = run(&venue, &customer, from) else {
            return;
        };
        assert_eq!((summary.completed, summary.broken), (ROWS as u64, 0), "{summary:?}");
        assert_eq!(summary.without_usage, 0);
        assert_eq!(summary.prompt_tokens, summary.prompt_tokens_sent);
        assert_eq!(summary.completion_tokens, summary.completion_tokens_wanted);
        billed += summary.prompt_tokens + summary.completion_tokens;
        let (tokens, refused) = produced(&venue);
        assert_eq!(tokens, billed, "what the suppliers produced and what customers were told");
        assert_eq!(books::used(&venue, &customer), tokens, "what was billed and what the suppliers produced");
        assert_eq!(refused > 0, from > 0, "{refused} calls failed over");
    }
    let accounts: Vec<Account> = books::everybody(&venue).into_iter().chain([customer.clone()]).collect();
    let books = Books::read(&venue, &accounts);
    books.conserve(books::DEMO_DEPOSITS + 1_000);
    assert_eq!(books.instruments["text-standard"].delivered, billed);
    let lots = venue.signer(&customer).get("/accounts/lots?status=all&limit=100");
    for lot in lots.as_array().expect("a list") {
        let (all, used, left) =
            (books::tokens(&lot["quantity"]), books::tokens(&lot["used"]), books::tokens(&lot["remaining"]));
        assert_eq!(all, used + left, "{lot}");
    }
    let data = venue.data();
    let (status, place) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let _place = place.expect("its own directory");
    inspect(&data);
}

#[test]
fn the_recorded_order_flow_makes_the_recorded_book_through_the_binary_door() {
    let Some(dir) = data_dir().filter(|dir| dir.join(MESSAGE_FILE).exists()) else {
        println!("skipped: the order flow is not at hand (../shared/data, or GRID_DATA)");
        return;
    };
    let recorded =
        OrderFlow::read(&dir.join(MESSAGE_FILE), &dir.join(BOOK_FILE)).expect("the recording reads");
    let venue = Venue::start(&Options::bare());
    let operator = venue.operator();
    let spec = InstrumentSpec {
        symbol: "recorded-flow".into(),
        name: "Recorded flow".into(),
        description: String::new(),
        quality: QualityTerms { output_floor: 1, context_floor: 1, ..QualityTerms::default() },
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
    };
    let own = operator.client.account();
    operator.command(own, &Command::DefineInstrument(Box::new(spec)));
    let instrument = venue.ready.instruments.len() as u16;
    let side = |name: &str| {
        let (id, account) = operator.open(name, AccountMode::Advanced, Usd::dollars(500_000_000));
        stock(&operator, id, instrument, 5_000_000);
        venue.client(&account)
    };
    let (maker, taker) = (side("rests"), side("takes"));
    let mut door = Door::open(maker, taker, instrument, 100).expect("a door");
    let summary = flow::replay(&recorded, &mut door).expect("the venue does what it is told");
    println!("{summary:?}");
    assert_eq!(summary.mismatches, []);
    assert_eq!((summary.mismatch_count, summary.level_checks), (0, 19_642), "{summary:?}");
    drop(door);
    drop(operator);
    let data = venue.data();
    let (status, place) = venue.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let _place = place.expect("its own directory");
    inspect(&data);
}

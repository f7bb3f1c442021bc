//! One stream through the engine, as quickly built and run as can be: `cargo run --release -p grid-engine-benches --example quick -- STREAM [COMMANDS] [ROUNDS]`.
//!
//! For whoever changes the engine: thread CPU time per command, the median over rounds. What counts is measured by `grid-benches`.

use grid_engine_benches::streams::{
    self, Books, Depth, Hot, exchange_mix, hot, place_cancel_match, reserve_settle,
};
use grid_harness::plain::Message;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static COUNTING: grid_harness::heap::Counting = grid_harness::heap::Counting;

fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual| words.get(at).map_or(usual, |word| word.parse().expect("a number"));
    let stream = words.first().map_or("engine_mix", String::as_str);
    let (commands, rounds) = (number(1, 1_000_000), number(2, 5));
    let tape = match stream {
        "engine_mix" => exchange_mix(commands),
        "place_cancel_match" => place_cancel_match(Depth::Normal, commands),
        "place_cancel_match_deep" => place_cancel_match(Depth::Static, commands),
        "thin_book_sweep" => streams::thin_book_sweep(commands),
        "cancel_burst" => streams::cancel_burst(commands),
        "mass_cancel" => streams::mass_cancel(commands),
        "mass_quotes" => streams::mass_quotes(commands),
        "replaced_quotes" => streams::replaced_quotes(commands),
        "ten_thousand_books" => {
            Books { books: number(3, 10_000) as u16, resting: 1_000_000, traders: 1_000, pareto: true }
                .tape(commands)
        }
        "ten_million_resting" => {
            Books { books: 100, resting: 10_000_000, traders: 1_000, pareto: false }.tape(commands)
        }
        "one_small_book" => Books { books: 1, resting: 1_000, traders: 1_000, pareto: false }.tape(commands),
        "reserve_settle" => reserve_settle(commands),
        // Not too many: each kind has its own stock.
        "cancel" => hot(Hot::Cancel, commands as u32),
        "place_resting" => hot(Hot::PlaceResting, commands as u32),
        "place_crossing" => hot(Hot::PlaceCrossingOne, commands as u32),
        "place_crossing_5" => hot(Hot::PlaceCrossingFive, commands as u32),
        "ioc_miss" => hot(Hot::IocMiss, commands as u32),
        "replace_keeping" => hot(Hot::ReplaceKeepingPriority, commands as u32),
        "replace_moving" => hot(Hot::ReplaceMoving, commands as u32),
        other => panic!("no stream is called {other}"),
    };
    println!(
        "{stream}: {commands} commands, {} trades, {} events, {} open at the end",
        tape.outcome.trades, tape.outcome.events, tape.open
    );
    mix(tape.messages.stream());
    let warm = tape.entries.len() / 10;
    let mut figures: Vec<f64> = (0..rounds)
        .map(|_| {
            let mut run = tape.run();
            run.some(warm);
            let begin = cpu_ns();
            run.all();
            let took = cpu_ns() - begin;
            assert_eq!(run.outcome(), tape.outcome);
            took / (tape.entries.len() - warm) as f64
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    let median = figures[figures.len() / 2];
    println!(
        "{median:.1} ns a command, {:.2} M/s (from {:.1} to {:.1} ns)",
        1e3 / median,
        figures[0],
        figures[figures.len() - 1]
    );
}

/// How often what is asked.
fn mix(messages: &[Message]) {
    let mut prices = std::collections::BTreeSet::new();
    let mut count = std::collections::BTreeMap::<String, usize>::new();
    for message in messages {
        prices.insert(message.price);
        *count.entry(format!("{:?}", message.verb)).or_default() += 1;
    }
    for (verb, count) in count {
        print!("{verb} {:.2} %  ", count as f64 * 100.0 / messages.len() as f64);
    }
    println!("{} prices", prices.len());
}

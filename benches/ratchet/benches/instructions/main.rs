//! Instructions of every hot command, counted by callgrind. A count does not depend on what else the machine does, nor on where memory lies, so it
//! may decide what a time may not: `cargo run -p grid-ratchet` compares these with the recorded ones.
//!
//! Each engine benchmark runs a hundred commands of one kind after a hundred of the same that warm up; eight mass cancels, of 100 orders each, after eight.

#![expect(missing_docs, reason = "the macros make public items without documentation")]

#[expect(unreachable_pub, reason = "public where it lives")]
#[path = "../../../src/no_disk.rs"]
mod no_disk;

mod counted;
mod door;
mod path;

use std::hint::black_box;

use grid_engine::command::Entry;
use grid_engine::event::Event;
use grid_engine::{Nanos, Seq};
use grid_engine_benches::streams::{Hot, hot};
use grid_engine_benches::tape::Run;
use grid_sequencer::{Block, Position};
use grid_wire::{ExecutionReport, Message, NewOrder};
use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

use crate::counted::{
    counted_decode_entry, counted_decode_frame, counted_encode_entry, counted_encode_execution_report,
    counted_encode_new_order,
};
use crate::door::Door;
use crate::path::Nodes;

/// How often each is done.
const COUNT: u32 = 100;

/// A run of one kind of command, warm, with as many left as it has done.
fn warm(kind: Hot) -> Run<'static> {
    let count = if kind == Hot::MassCancel { 8 } else { COUNT };
    let tape = Box::leak(Box::new(hot(kind, 2 * count)));
    let mut run = tape.run();
    run.some(count as usize);
    run
}

#[library_benchmark]
#[bench::place_resting(args = (Hot::PlaceResting), setup = warm)]
#[bench::place_crossing_1_level(args = (Hot::PlaceCrossingOne), setup = warm)]
#[bench::place_crossing_5_levels(args = (Hot::PlaceCrossingFive), setup = warm)]
#[bench::ioc_miss(args = (Hot::IocMiss), setup = warm)]
#[bench::cancel(args = (Hot::Cancel), setup = warm)]
#[bench::replace_keeping_priority(args = (Hot::ReplaceKeepingPriority), setup = warm)]
#[bench::replace_moving(args = (Hot::ReplaceMoving), setup = warm)]
#[bench::mass_cancel_of_100(args = (Hot::MassCancel), setup = warm)]
#[bench::mass_quote_of_20(args = (Hot::MassQuote), setup = warm)]
#[bench::refused_with_one_report(args = (Hot::Refused), setup = warm)]
#[bench::duplicate_client_seq(args = (Hot::Repeated), setup = warm)]
#[bench::reserve(args = (Hot::Reserve), setup = warm)]
#[bench::settle(args = (Hot::Settle), setup = warm)]
#[bench::auto_buy(args = (Hot::AutoBuy), setup = warm)]
fn engine(mut run: Run<'static>) -> Run<'static> {
    run.all();
    run
}

fn entries() -> (Vec<Entry>, Vec<u8>) {
    (hot(Hot::PlaceResting, COUNT).entries, Vec::with_capacity(1 << 16))
}

fn encoded() -> Vec<Vec<u8>> {
    let one = |entry: &Entry| {
        let mut form = Vec::new();
        entry.encode(&mut form);
        form
    };
    entries().0.iter().map(one).collect()
}

/// What a hundred moved orders tell.
fn told() -> (Vec<Event>, Vec<u8>) {
    let tape = hot(Hot::ReplaceMoving, COUNT);
    let (mut engine, mut seq, mut events) = (tape.start, tape.seq, Vec::new());
    for entry in &tape.entries {
        seq = seq.next();
        engine.apply(seq, Nanos(seq.0), entry, &mut events);
    }
    (events, Vec::with_capacity(1 << 16))
}

// As replicas compare them.
#[library_benchmark]
#[bench::of_100_moves(setup = told)]
fn encode_events((events, mut out): (Vec<Event>, Vec<u8>)) -> (Vec<Event>, Vec<u8>) {
    events.iter().for_each(|event| event.encode(&mut out));
    (events, out)
}

/// The payload of a block of 64 commands.
fn payload() -> Vec<u8> {
    let mut payload = Vec::new();
    for form in encoded().iter().take(64) {
        payload.extend_from_slice(&(form.len() as u32).to_le_bytes());
        payload.extend_from_slice(form);
    }
    payload
}

#[library_benchmark(config = counted::these())]
#[bench::of_100(setup = entries)]
fn encode_entry((entries, mut out): (Vec<Entry>, Vec<u8>)) -> (Vec<Entry>, Vec<u8>) {
    entries.iter().for_each(|entry| counted_encode_entry(entry, &mut out));
    (entries, out)
}

#[library_benchmark(config = counted::these())]
#[bench::of_100(setup = encoded)]
fn decode_entry(forms: Vec<Vec<u8>>) -> Vec<Entry> {
    forms.iter().map(|form| counted_decode_entry(form).expect("what was encoded")).collect()
}

#[library_benchmark]
#[bench::of_64_commands(setup = payload)]
fn seal_block(payload: Vec<u8>) -> (Vec<u8>, Block) {
    let block = Block::entry(&Position::default(), 1, Nanos(1), 64, &payload);
    assert_eq!(block.header().first_seq, Seq(1));
    (payload, block)
}

fn order() -> NewOrder {
    NewOrder { account: 1, price: 10_000, qty: 10, label: 7, ..Default::default() }
}

fn report() -> ExecutionReport {
    ExecutionReport {
        session_seq: 1,
        order_id: 1 << 24,
        price: 10_000,
        leaves_qty: 10,
        label: 7,
        ..Default::default()
    }
}

fn room() -> Vec<u8> {
    Vec::with_capacity(1 << 16)
}

#[library_benchmark(config = counted::these())]
#[bench::of_100(setup = room)]
fn encode_new_order(mut out: Vec<u8>) -> Vec<u8> {
    let order = black_box(order());
    (0..COUNT).for_each(|_| counted_encode_new_order(&order, &mut out));
    out
}

#[library_benchmark(config = counted::these())]
#[bench::of_100(setup = room)]
fn encode_execution_report(mut out: Vec<u8>) -> Vec<u8> {
    let report = black_box(report());
    (0..COUNT).for_each(|_| counted_encode_execution_report(&report, &mut out));
    out
}

/// The same message a hundred times.
fn frames(message: Message<'_>) -> Vec<u8> {
    let mut out = room();
    (0..COUNT).for_each(|_| message.encode(&mut out));
    out
}

#[library_benchmark(config = counted::these())]
#[bench::of_100_new_orders(args = (Message::NewOrder(order())), setup = frames)]
#[bench::of_100_execution_reports(args = (Message::ExecutionReport(report())), setup = frames)]
fn decode_frames(bytes: Vec<u8>) -> Vec<u8> {
    let mut rest = &bytes[..];
    while let Some((_, length)) = black_box(counted_decode_frame(rest)) {
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "all are whole");
    bytes
}

/// Blocks that each path is counted over.
const BLOCKS: usize = 100;

fn path_of(nodes: u64, block: usize) -> Nodes {
    Nodes::warm(nodes, BLOCKS, block)
}

// Every stage and the raft core, without a disk and with a machine that does nothing; of 100 blocks.
#[library_benchmark]
#[bench::one_command_in_a_block(args = (1, 1), setup = path_of)]
#[bench::commands_64_in_a_block(args = (1, 64), setup = path_of)]
#[bench::three_nodes_one_command(args = (3, 1), setup = path_of)]
#[bench::three_nodes_64_commands(args = (3, 64), setup = path_of)]
fn order_path(mut nodes: Nodes) -> Nodes {
    nodes.run(BLOCKS);
    nodes
}

/// Bursts of requests that the door is counted over.
const BURSTS: usize = 50;

fn door_of(burst: usize) -> Door {
    Door::warm(BURSTS, burst)
}

// The order gateway alone, from a client's frames to commands in line and from their events to frames again: 50 bursts, each of
// orders or of their cancels.
#[library_benchmark]
#[bench::one_request_in_a_burst(args = (1), setup = door_of)]
#[bench::requests_32_in_a_burst(args = (32), setup = door_of)]
fn order_gateway(mut door: Door) -> Door {
    door.run(BURSTS);
    door
}

/// What is long, the C library copies and clears with one instruction of the processor's, which callgrind counts once for each byte: a list
/// that grew and happened to be moved then counted more than what made it grow. With these it does so word by word.
const BY_WORDS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

fn by_words() -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.env("GLIBC_TUNABLES", BY_WORDS);
    config
}

library_benchmark_group!(
    name = hot_commands,
    benchmarks = [
        engine,
        encode_entry,
        decode_entry,
        encode_events,
        seal_block,
        encode_new_order,
        encode_execution_report,
        decode_frames,
        order_path,
        order_gateway
    ]
);
main!(config = by_words(), library_benchmark_groups = hot_commands);

//! `inference_latency`: what a proxy adds to a call with a prompt of 4 KB, whole and streamed: time to the last byte and to
//! the first byte of the body at a planned rate, calls per second over 16 connections, and processor time per call. Our tier
//! (key, reservation in the log, meter, settlement in the log) with its journal in memory and on the disk, beside the
//! supplier itself, a bare `hyper` proxy, nginx, and two gateways; all in one run, in turns.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grid_harness::{Against, Ground, Latencies, Rounds, Row, Scenario, Settings, per_second};

use crate::Failure;
use crate::contenders::{BARE, Contender, TIER};
use crate::load::Until;
use crate::talk::{Length, Shape};

/// Calls per second that a plan has where the command line says nothing: few enough that all but LiteLLM are mostly idle.
const RATE: f64 = 200.0;
/// Connections of either load.
const CONNECTIONS: usize = 16;
/// Where files lie in memory.
const MEMORY: &str = "/dev/shm";

/// See the module.
#[derive(Debug)]
pub struct Latency {
    /// Run again for the processes.
    pub program: PathBuf,
    /// Whether programs of others are measured too, where they are on the `PATH`.
    pub peers: bool,
}

impl Scenario for Latency {
    fn name(&self) -> &'static str {
        "inference_latency"
    }

    fn shows(&self) -> &'static str {
        "slower: every call through the venue takes longer than through a proxy that does nothing, or a core carries fewer"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        self.measure(settings).map_err(|error| error as Box<dyn Error>)
    }
}

/// What one contender did in one shape.
#[derive(Default)]
struct Measured {
    whole: Latencies,
    first_p50: Rounds,
    first_p99: Rounds,
    /// Processor time per call at the planned rate.
    calm: Rounds,
    calm_core: Rounds,
    rate: Rounds,
    /// The same over all connections.
    busy: Rounds,
    busy_core: Rounds,
}

impl Latency {
    fn measure(&self, settings: &Settings) -> Result<Vec<Row>, Failure> {
        let memory = Path::new(MEMORY);
        let memory = Ground::under(if memory.is_dir() { memory } else { &settings.dir })?;
        let disk = Ground::under(&settings.dir)?;
        let direct = Contender::direct(&self.program)?;
        let supplier = direct.address;
        let mut contenders = vec![
            direct,
            Contender::bare(&self.program, supplier)?,
            Contender::venue(&self.program, supplier, TIER, &memory.at("venue"))?,
        ];
        if disk.kind() != memory.kind() {
            let name = format!("{TIER}, journal on the disk");
            contenders.push(Contender::venue(&self.program, supplier, &name, &disk.at("venue"))?);
        }
        let mut absent = Vec::new();
        if self.peers {
            let (peers, missing) = Contender::peers(supplier, &memory.at("peers"))?;
            contenders.extend(peers);
            absent = missing;
        }
        let mut rows = Vec::new();
        for (shape, said) in [(Shape::Whole, "whole"), (Shape::Stream(Length::Usual), "streamed")] {
            rows.extend(rounds(settings, &mut contenders, shape, said)?);
        }
        if let Some(row) = rows.first_mut()
            && !absent.is_empty()
        {
            row.notes.push(format!("not on this machine's PATH, and so left out: {}", absent.join(", ")));
        }
        // The supplier, which is first, ends last.
        while let Some(contender) = contenders.pop() {
            contender.end()?;
        }
        Ok(rows)
    }
}

fn rounds(
    settings: &Settings,
    contenders: &mut [Contender],
    shape: Shape,
    said: &str,
) -> Result<Vec<Row>, Failure> {
    let mut all: Vec<Measured> = contenders.iter().map(|_| Measured::default()).collect();
    for round in 0..settings.rounds {
        for (contender, measured) in contenders.iter_mut().zip(&mut all) {
            one(settings, contender, shape, round == 0, measured)
                .map_err(|error| format!("{}: {error}", contender.name))?;
        }
    }
    let bare =
        contenders.iter().position(|contender| contender.name == BARE).ok_or("there is a bare proxy")?;
    let direct_p50 = all[0].whole.p50().clone();
    let (bare_p50, bare_rate, bare_first) =
        (all[bare].whole.p50().clone(), all[bare].rate.clone(), all[bare].first_p50.clone());
    let mut rows = Vec::new();
    let less = |of: &Rounds, less: &Rounds, scale: f64| -> Rounds {
        of.figures().iter().zip(less.figures()).map(|(of, less)| (of - less) / scale).collect()
    };
    let mut busy = Vec::new();
    for (nth, (contender, measured)) in contenders.iter().zip(all).enumerate() {
        let is_venue = contender.name.starts_with(TIER);
        let added = less(measured.whole.p50(), &direct_p50, 1e3);
        let beyond = less(measured.whole.p50(), &bare_p50, 1e3);
        let first = less(&measured.first_p50, &bare_first, 1.0);
        let rate = settings.rate_or(RATE).min(contender.rate_max);
        let mut row =
            Row::new(format!("{said}, {rate} a second, {}", contender.name)).latency(measured.whole);
        row = row.figure("first byte of the body p50", "µs", measured.first_p50);
        row = row.figure("first byte of the body p99", "µs", measured.first_p99);
        row = row.figure("on a core per call", "µs", measured.calm);
        if is_venue {
            row = row.figure("on a core per call: the venue's core", "µs", measured.calm_core);
        }
        let mut full = Row::new(format!("{said}, {CONNECTIONS} connections, {}", contender.name));
        full = full.throughput(measured.rate).figure("on a core per call", "µs", measured.busy);
        if is_venue {
            full = full.figure("on a core per call: the venue's core", "µs", measured.busy_core);
        }
        if nth > 0 {
            row = row.floor(BARE, Against::Latency, bare_p50.clone());
            row = row.figure("p50 beyond the supplier's", "µs", added);
            row = row.figure("p50 beyond the bare proxy's", "µs", beyond);
            row = row.figure("first byte p50 beyond the bare proxy's", "µs", first);
            full = full.floor(BARE, Against::Throughput, bare_rate.clone());
        }
        rows.push(row);
        busy.push(full);
    }
    rows.extend(busy);
    Ok(rows)
}

fn one(
    settings: &Settings,
    contender: &mut Contender,
    shape: Shape,
    first: bool,
    into: &mut Measured,
) -> Result<(), Failure> {
    let load = contender.load(shape, CONNECTIONS);
    let rate = settings.rate_or(RATE).min(contender.rate_max);
    if first {
        // Whatever is slow once only: pools of connections, caches, and what Python puts off.
        let outcome =
            load.closed(Until::Calls(settings.commands_or(if rate < RATE { 64 } else { 2_000 })))?;
        contender.answered(outcome.answered, shape);
    }
    let per_call = |ns: u64, calls: u64| ns as f64 / calls.max(1) as f64 / 1e3;
    let micros = |histogram: &hdrhistogram::Histogram<u64>, at| histogram.value_at_quantile(at) as f64 / 1e3;

    let before = contender.usage();
    let outcome = load.open(rate, settings.commands_or((rate * settings.seconds).ceil() as u64))?;
    let used = contender.usage().since(&before);
    contender.answered(outcome.answered, shape);
    into.whole.push(&outcome.whole);
    into.first_p50.push(micros(&outcome.first, 0.5));
    into.first_p99.push(micros(&outcome.first, 0.99));
    into.calm.push(per_call(used.calls_ns, outcome.answered));
    into.calm_core.push(per_call(used.core_ns, outcome.answered));

    let until = match settings.commands {
        Some(calls) => Until::Calls(calls),
        None => Until::Time(Duration::from_secs_f64(settings.seconds)),
    };
    let before = contender.usage();
    let outcome = load.closed(until)?;
    let used = contender.usage().since(&before);
    contender.answered(outcome.answered, shape);
    into.rate.push(per_second(outcome.answered, outcome.took));
    into.busy.push(per_call(used.calls_ns, outcome.answered));
    into.busy_core.push(per_call(used.core_ns, outcome.answered));
    Ok(())
}

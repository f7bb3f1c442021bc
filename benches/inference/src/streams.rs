//! `inference_streams`: short streams per second (8 words, 12 events) over 16 connections, and what 10,000 streams that are
//! open at once take of a proxy's memory, our tier beside the bare `hyper` proxy. Streams wait after their first words until
//! all are open and the memory was read; then each must come to its right end, and be settled.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings, per_second};

use crate::Failure;
use crate::contenders::{BARE, Contender, TIER};
use crate::http::Connection;
use crate::load::Until;
use crate::talk::{Length, Shape};

const SHORT: Shape = Shape::Stream(Length::Short);
/// Connections of the load of short streams.
const CONNECTIONS: usize = 16;
/// Streams that are open at once.
const OPEN: u64 = 10_000;
/// Threads that open them.
const OPENERS: u64 = 16;

/// See the module.
#[derive(Debug)]
pub struct Streams {
    /// Run again for the processes.
    pub program: PathBuf,
}

impl Scenario for Streams {
    fn name(&self) -> &'static str {
        "inference_streams"
    }

    fn shows(&self) -> &'static str {
        "slower, or larger: the tier carries fewer streams, and each that is open takes more of its memory"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        self.measure(settings).map_err(|error| error as Box<dyn Error>)
    }
}

#[derive(Default)]
struct Measured {
    rate: Rounds,
    busy: Rounds,
    busy_core: Rounds,
    memory: Rounds,
}

impl Streams {
    fn measure(&self, settings: &Settings) -> Result<Vec<Row>, Failure> {
        let memory = Path::new("/dev/shm");
        let ground = Ground::under(if memory.is_dir() { memory } else { &settings.dir })?;
        // A proxy has two sockets a stream.
        let allowed =
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = settings.commands_or(OPEN).min(allowed.saturating_sub(200) / 2);
        let mut all = [Measured::default(), Measured::default()];
        for round in 0..settings.rounds {
            // Memory that was used once is not always given back: each round has processes of its own.
            let supplier = Contender::direct(&self.program)?;
            let dir = ground.at(&format!("venue-{round}"));
            let mut contenders = [
                Contender::bare(&self.program, supplier.address)?,
                Contender::venue(&self.program, supplier.address, TIER, &dir)?,
            ];
            for (contender, measured) in contenders.iter_mut().zip(&mut all) {
                short(settings, contender, measured)?;
                let bytes = held(contender, &supplier, open)?;
                measured.memory.push(bytes / open as f64 / 1024.0);
            }
            for contender in contenders {
                contender.end()?;
            }
            supplier.end()?;
        }
        let bare_rate = all[0].rate.clone();
        let mut rows = Vec::new();
        for (name, measured) in [BARE, TIER].into_iter().zip(all) {
            let mut row = Row::new(format!("short streams, {CONNECTIONS} connections, {name}"))
                .throughput(measured.rate)
                .floor(BARE, Against::Throughput, bare_rate.clone())
                .figure("on a core per stream", "µs", measured.busy)
                .figure(format!("memory per stream, {open} open"), "KiB", measured.memory);
            if name == TIER {
                row = row.figure("on a core per stream: the venue's core", "µs", measured.busy_core);
            }
            rows.push(row);
        }
        if open < OPEN && settings.commands.is_none() {
            rows[0].notes.push(format!("{OPEN} streams would need `ulimit -n` above {}", 2 * OPEN + 200));
        }
        Ok(rows)
    }
}

fn short(settings: &Settings, contender: &mut Contender, into: &mut Measured) -> Result<(), Failure> {
    let load = contender.load(SHORT, CONNECTIONS);
    let outcome = load.closed(Until::Calls(settings.commands_or(2_000)))?;
    contender.answered(outcome.answered, SHORT);
    let until = match settings.commands {
        Some(calls) => Until::Calls(calls),
        None => Until::Time(Duration::from_secs_f64(settings.seconds)),
    };
    let before = contender.usage();
    let outcome = load.closed(until)?;
    let used = contender.usage().since(&before);
    contender.answered(outcome.answered, SHORT);
    into.rate.push(per_second(outcome.answered, outcome.took));
    into.busy.push(used.calls_ns as f64 / outcome.answered.max(1) as f64 / 1e3);
    into.busy_core.push(used.core_ns as f64 / outcome.answered.max(1) as f64 / 1e3);
    Ok(())
}

/// Opens so many streams, and lets them come to their end; the bytes that the proxy took for them meanwhile.
fn held(contender: &mut Contender, supplier: &Contender, open: u64) -> Result<f64, Failure> {
    let mut control = Connection::open(supplier.address)?;
    control.ask(&Connection::request("/hold", "none", ""))?;
    let requests = contender.load(SHORT, 1).requests();
    let before = contender.usage();
    let next = AtomicU64::new(0);
    let address = contender.address;
    let opener = || -> Result<Vec<Connection>, Failure> {
        let mut mine = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= open {
                return Ok(mine);
            }
            let mut connection = Connection::open(address)?;
            connection.begin(&requests[nth as usize % requests.len()])?;
            connection.first_byte()?;
            mine.push(connection);
        }
    };
    let mut streams = Vec::new();
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(opener)).collect();
        for opened in openers {
            streams.extend(opened.join().map_err(|_| "a thread of the load fell")??);
        }
        Ok::<_, Failure>(())
    })?;
    let used = contender.usage().since(&before);
    control.ask(&Connection::request("/release", "none", ""))?;
    for stream in &mut streams {
        stream.finish()?;
        SHORT.check(stream.body())?;
    }
    contender.answered(open, SHORT);
    Ok(used.resident as f64)
}

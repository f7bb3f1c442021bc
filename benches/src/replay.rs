//! Coming back: how fast a log is replayed against how fast it was made, and how long a start takes with and without a snapshot.
//!
//! A regression here means that a venue which went down stays down longer.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_engine::{Engine, Nanos, Seq};
use grid_engine_benches::market::Market;
use grid_harness::{Against, Ground, Rounds, Row, Scenario, Settings, per_second, ratios};
use grid_sequencer::{
    Block, JournalConfig, Machine, Persist, Position, RecoveryReport, SnapshotMeta, SnapshotStore, recover,
};

use crate::cluster::{Cluster, entries, submit_all};
use crate::live;

/// Commands of a full block, and blocks that are written with one sync, as under full load.
const BLOCK_COMMANDS: u64 = 64;
const GROUP_BLOCKS: usize = 512;

/// Recovers and says what it did and how long that took, opening of files included.
fn timed_recovery(dir: &Path) -> Result<(RecoveryReport, Seq, Duration), Box<dyn Error>> {
    let begin = Instant::now();
    let recovered = recover(dir, JournalConfig::default(), Engine::new, |_| {})?;
    Ok((recovered.report.clone(), recovered.position.seq, begin.elapsed()))
}

/// A log replayed, against the rate at which it was made.
#[derive(Debug)]
pub struct ReplayRate;

impl Scenario for ReplayRate {
    fn name(&self) -> &'static str {
        "replay_rate"
    }

    fn shows(&self) -> &'static str {
        "A log replayed, against the rate at which it was made: by clients over one session, and by this process itself. Worse means that \
         a venue which went down stays down longer."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let commands = settings.commands_or(500_000);
        let load = entries(commands);
        let [mut live, mut of_live, mut inside, mut of_inside] = [(); 4].map(|()| Rounds::default());
        for round in 0..settings.rounds {
            let run = live::over_a_session(&ground, &format!("live-{round}"), &load, commands as usize)?;
            live.push(per_second(commands, run.took));
            of_live.push(replay(&run.dir, run.last, run.hash)?);

            let mut cluster = Cluster::start(&ground, &format!("inside-{round}"), 1, Default::default())?;
            let dir = cluster.data_dir(0);
            let mut opening = load.clone();
            let measured = opening.split_off(load.len() - commands as usize);
            submit_all(&mut cluster, opening)?;
            inside.push(per_second(commands, submit_all(&mut cluster, measured)?));
            let stopped = cluster.stop();
            of_inside.push(replay(&dir, stopped[0].position.seq, stopped[0].machine.state_hash())?);
        }
        let replayed = |name: &str, replay: Rounds, made: Rounds| {
            Row::new(name).throughput(replay).floor(
                "the rate at which it was made",
                Against::Throughput,
                made,
            )
        };
        Ok(vec![
            Row::new("live")
                .throughput(live.clone())
                .note("from a client over one binary session on loopback, until the last one is answered")
                .note("one node with all its stages and replica"),
            replayed("replay of it", of_live, live)
                .note("from the first block, no snapshot, until the state is there; the journal is in the page cache"),
            Row::new("inside")
                .throughput(inside.clone())
                .note("handed to the inbound ring as fast as it takes them, without gateway or client"),
            replayed("replay of what was handed in inside", of_inside, inside),
        ])
    }
}

/// Recovers a directory without its snapshots, to the state that it is known to hold, and removes it; commands per second.
fn replay(dir: &Path, last: Seq, hash: u64) -> Result<f64, Box<dyn Error>> {
    for snapshot in snapshots(dir).list()? {
        std::fs::remove_file(snapshot)?;
    }
    let begin = Instant::now();
    let recovered = recover(dir, JournalConfig::default(), Engine::new, |_| {})?;
    let rate = per_second(recovered.report.replayed, begin.elapsed());
    assert_eq!(recovered.position.seq, last, "every command is replayed");
    assert_eq!(recovered.machine.state_hash(), hash, "a replay comes to the same state");
    drop(recovered);
    std::fs::remove_dir_all(dir)?;
    Ok(rate)
}

fn snapshots(dir: &Path) -> SnapshotStore {
    SnapshotStore::new(dir.join("snapshots"))
}

/// Writes a journal of `commands` commands, block by block and without a venue; the snapshot of its state at 99 in 100.
fn write_journal(dir: &Path, commands: u64) -> Result<(SnapshotMeta, Vec<u8>), Box<dyn Error>> {
    let recovered = recover(dir, JournalConfig::default(), Engine::new, |_| {})?;
    let (mut journal, _lock) = recovered.into_journal();
    let mut market = Market::open();
    let mut waiting = market.take_tape().into_iter();
    let (mut position, mut ticket, mut snapshot) = (Position::default(), 0, None);
    let (mut payload, mut form) = (Vec::new(), Vec::new());
    while position.seq.0 < commands {
        let mut blocks = Vec::with_capacity(GROUP_BLOCKS);
        while blocks.len() < GROUP_BLOCKS && position.seq.0 < commands {
            payload.clear();
            let mut count = 0;
            while u64::from(count) < BLOCK_COMMANDS {
                let entry = waiting.next().unwrap_or_else(|| market.next());
                form.clear();
                Engine::encode(&entry, &mut form);
                payload.extend_from_slice(&(form.len() as u32).to_le_bytes());
                payload.extend_from_slice(&form);
                count += 1;
            }
            let at = Nanos(position.seq.0 + u64::from(count));
            let block = Block::entry(&position, 1, at, count, &payload);
            position = Position::after(block.header());
            blocks.push(Arc::new(block));
            // The tape of the opening has been applied before it is written.
            if snapshot.is_none() && position.seq.0 > commands / 100 * 99 && waiting.len() == 0 {
                let engine = market.engine();
                let meta = SnapshotMeta {
                    position,
                    state_hash: engine.state_hash(),
                    machine_format: Engine::FORMAT,
                    members: Vec::new(),
                };
                snapshot = Some((meta, engine.snapshot()));
            }
        }
        ticket += 1;
        // As a running node notes it: with each group, what was committed before.
        journal.commit(blocks.first().map_or(0, |block: &Arc<Block>| block.header().index - 1));
        journal.append(&[Persist { ticket, hard_state: None, blocks: blocks.into() }])?;
    }
    journal.commit(position.index);
    journal.close()?;
    snapshot.ok_or_else(|| "too few commands for a snapshot on the way".into())
}

/// A start from a journal, from its first block and from a snapshot at 99 in 100 of it.
#[derive(Debug)]
pub struct Recovery;

impl Scenario for Recovery {
    fn name(&self) -> &'static str {
        "recovery"
    }

    fn shows(&self) -> &'static str {
        "A start from a journal of 10 million commands, with and without a snapshot. Worse means that a restart takes longer; with a \
         snapshot, that the age of a venue begins to show in it."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        let ground = Ground::under(&settings.dir)?;
        let commands = settings.commands_or(10_000_000);
        let dir = ground.at("recovery");
        let begin = Instant::now();
        let (meta, body) = write_journal(&dir, commands)?;
        let written = begin.elapsed();
        let store = snapshots(&dir);
        let starts = |with: bool| -> Result<(Rounds, Rounds, RecoveryReport), Box<dyn Error>> {
            if with {
                store.write(&meta, &body)?;
            }
            let (mut took, mut rate, mut last) = (Rounds::default(), Rounds::default(), None);
            for _ in 0..settings.rounds {
                let (report, seq, elapsed) = timed_recovery(&dir)?;
                assert!(seq.0 >= commands, "the whole journal is there: {seq:?}");
                assert_eq!(report.snapshot.is_some(), with);
                took.push(elapsed.as_secs_f64());
                rate.push(per_second(report.replayed, elapsed));
                last = Some(report);
            }
            Ok((took, rate, last.ok_or("at least one round")?))
        };
        let (without, rate, _) = starts(false)?;
        let (with, _, report) = starts(true)?;
        let bytes: u64 = std::fs::read_dir(dir.join("journal"))?
            .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
            .sum();
        std::fs::remove_dir_all(&dir)?;
        let against = ratios(&with, &without);
        Ok(vec![
            Row::new("without a snapshot").throughput(rate).figure("start", "s", without).note(format!(
                "the journal of {commands} commands takes {} MiB and was written in {:.0} s; it is in the page cache",
                bytes >> 20,
                written.as_secs_f64(),
            )),
            Row::new("with a snapshot")
                .figure("start", "s", with)
                .figure("start, with against without", "times", against)
                .note(format!("of {} KiB, {} commands before the end", body.len() >> 10, report.replayed)),
        ])
    }
}

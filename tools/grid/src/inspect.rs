//! `grid inspect`: what is in a data directory, checked block by block and said in words. Changes nothing.

use std::io::Write;
use std::path::PathBuf;

use grid_engine::{Engine, Entry, Seq};
use grid_sequencer::inspect::{InspectedBlock, JournalSummary, snapshots, visit_blocks};
use grid_sequencer::{Machine, replay_from_first_block};

use crate::Outcome;
use crate::progress;

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    /// The data directory.
    #[arg(default_value = "grid-data")]
    data_dir: PathBuf,
    /// Print every command, one line each.
    #[arg(long)]
    commands: bool,
    /// First log sequence to print.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many commands to print at most.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Replay everything from the first block, prove every invariant and print the state hash.
    #[arg(long)]
    replay: bool,
    /// One JSON object instead of words.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut printed = 0;
    let mut broken = None;
    let summary = visit_blocks(&args.data_dir, Engine::FORMAT, |block| {
        if args.commands && broken.is_none() {
            broken = print_block(&mut out, block, args, &mut printed).err();
        }
    })?;
    // A closed pipe (`| head`) is a reader who has seen enough.
    if broken.is_some() {
        return Ok(());
    }
    let snapshots = snapshots(&args.data_dir)?;
    let replayed = if args.replay { Some(replay(args, &summary)?) } else { None };

    if args.json {
        let listed: Vec<_> = snapshots
            .iter()
            .map(|snapshot| match &snapshot.meta {
                Ok((meta, bytes)) => serde_json::json!({
                    "file": snapshot.path, "bytes": bytes, "sequence": meta.position.seq.0,
                    "state_hash": format!("{:016x}", meta.state_hash),
                }),
                Err(error) => serde_json::json!({ "file": snapshot.path, "error": error.to_string() }),
            })
            .collect();
        let json = serde_json::json!({
            "segments": summary.segments, "blocks": summary.entry_blocks, "other_blocks": summary.other_blocks,
            "commands": summary.commands, "bytes": summary.bytes, "last_sequence": summary.position.seq.0,
            "torn": summary.torn.is_some(), "snapshots": listed,
            "state_hash": replayed.as_ref().map(|engine| format!("{:016x}", engine.state_hash())),
        });
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "journal    {} segments, {} blocks with {} commands, {} other blocks, {} bytes; every checksum holds",
        summary.segments, summary.entry_blocks, summary.commands, summary.other_blocks, summary.bytes
    )?;
    writeln!(out, "position   sequence {}, block {}", summary.position.seq.0, summary.position.index)?;
    if let Some(torn) = &summary.torn {
        writeln!(out, "torn tail  {torn:?}: unacknowledged, or being written right now")?;
    }
    for snapshot in snapshots {
        match snapshot.meta {
            Ok((meta, bytes)) => writeln!(
                out,
                "snapshot   {} at sequence {}, {bytes} bytes, state hash {:016x}",
                snapshot.path.display(),
                meta.position.seq.0,
                meta.state_hash
            )?,
            Err(error) => writeln!(out, "snapshot   {} does not read: {error}", snapshot.path.display())?,
        }
    }
    if let Some(engine) = replayed {
        print_state(&mut out, &engine)?;
    }
    Ok(())
}

fn print_block(
    out: &mut impl Write,
    block: &InspectedBlock<'_>,
    args: &InspectArgs,
    printed: &mut u64,
) -> std::io::Result<()> {
    for (seq, bytes) in block.command_bytes() {
        if seq < Seq(args.from) || *printed >= args.count {
            continue;
        }
        *printed += 1;
        match Entry::decode(bytes) {
            Ok(entry) => writeln!(
                out,
                "{} at {} session {:032x} #{} account {} {:?}",
                seq.0, block.header.at.0, entry.session.0, entry.client_seq, entry.account.0, entry.command
            )?,
            Err(error) => writeln!(out, "{} does not decode: {error}", seq.0)?,
        }
    }
    Ok(())
}

fn replay(args: &InspectArgs, summary: &JournalSummary) -> Result<Engine, Box<dyn std::error::Error>> {
    let bar = progress::replay(summary.bytes);
    let replayed = replay_from_first_block(&args.data_dir, Engine::new, |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
    })?;
    bar.finish_and_clear();
    replayed.machine.check_invariants()?;
    Ok(replayed.machine)
}

fn print_state(out: &mut impl Write, engine: &Engine) -> std::io::Result<()> {
    let state = engine.state();
    writeln!(out, "state hash {:016x}; every invariant holds", engine.state_hash())?;
    writeln!(
        out,
        "directory  {} accounts, {} instruments, {} suppliers, {} sessions, {} open reservations",
        state.accounts.len(),
        state.instruments.len(),
        state.suppliers.len(),
        state.sessions.len(),
        state.reservations.len()
    )?;
    writeln!(out, "money      {} deposited, {} withdrawn", state.deposited, state.withdrawn)?;
    for (record, book) in state.instruments.iter().zip(&state.books) {
        writeln!(
            out,
            "{:<15} {} open orders, {} trades, tokens issued {} delivered {} expired {}",
            record.spec.symbol,
            book.len(),
            record.trades,
            record.issued.0,
            record.delivered.0,
            record.expired.0
        )?;
    }
    Ok(())
}

//! `grid inspect`: what is in a data directory, checked block by block and said in words. Changes nothing.

use std::io::Write;
use std::path::PathBuf;

use grid_engine::book::BookView;
use grid_engine::{Engine, Entry, Seq};
use grid_sequencer::inspect::{InspectedBlock, JournalSummary, snapshots, visit_blocks};
use grid_sequencer::{HardState, Machine, Upto, replay_all_kept};

use crate::Outcome;
use crate::progress;

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    /// The data directory.
    #[arg(default_value = "grid-data")]
    data_dir: PathBuf,
    /// Print every command, one line each; of a cluster also those that were replaced before they were committed.
    #[arg(long)]
    commands: bool,
    /// Print every block, one line each: what it is, where it lies, and what it replaces.
    #[arg(long)]
    blocks: bool,
    /// First log sequence to print.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many commands to print at most.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Replay everything from the first block (or the oldest snapshot, where that is gone), prove every invariant and print the state hash.
    #[arg(long)]
    replay: bool,
    /// Replay to the last block, also past what the journal says is committed, which after a kill may be up to 64 blocks behind.
    /// Right for a venue of one node, where what is written is committed; of a cluster's node those blocks may yet be replaced.
    #[arg(long, requires = "replay")]
    to_end: bool,
    /// One JSON object instead of words.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut printed = 0;
    let mut broken = None;
    let summary = visit_blocks(&args.data_dir, Engine::FORMAT, |block| {
        if args.blocks && broken.is_none() {
            broken = print_block(&mut out, block).err();
        }
        if args.commands && broken.is_none() {
            broken = print_commands(&mut out, block, args, &mut printed).err();
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
            "last_block": summary.position.index, "last_chain": format!("{:016x}", summary.position.chain),
            "log_start": summary.log_start.index, "term": summary.hard_state.term, "vote": summary.hard_state.vote,
            "committed_block": summary.hard_state.commit, "replaced_blocks": summary.replaced_blocks,
            "conf_changes": summary.conf_changes,
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
    let (start, position, state) = (summary.log_start, summary.position, summary.hard_state);
    writeln!(
        out,
        "position   sequence {}, block {} of term {}; the log begins behind block {}",
        position.seq.0, position.index, position.term, start.index
    )?;
    writeln!(
        out,
        "consensus  term {}, vote {}, committed up to block {}; {} changes of members, {} blocks replaced before they were committed",
        state.term, state.vote, state.commit, summary.conf_changes, summary.replaced_blocks
    )?;
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

fn print_block(out: &mut impl Write, block: &InspectedBlock<'_>) -> std::io::Result<()> {
    let header = &block.header;
    let file = block.path.file_name().unwrap_or_default().display();
    write!(out, "{file}:{} block {} term {} ", block.offset, header.index, header.term)?;
    if let Some(state) = block.hard_state() {
        let HardState { term, vote, commit } = state;
        write!(out, "hard state: term {term}, vote {vote}, committed up to block {commit}")?;
    } else if let Some(position) = block.snapshot() {
        write!(out, "snapshot: the log goes on behind block {} of term {}", position.index, position.term)?;
    } else if let Some(change) = block.conf_change() {
        write!(out, "change of members, {} bytes, chain {:016x}", change.len(), header.chain)?;
    } else {
        let first = header.first_seq.0;
        match header.commands {
            0 => write!(out, "entry without commands")?,
            count => write!(out, "entry: commands {first} to {}", first + u64::from(count) - 1)?,
        }
        write!(out, ", chain {:016x}, at {}", header.chain, header.at.0)?;
    }
    if block.replaces > 0 {
        write!(out, "; replaces {} blocks that were never committed", block.replaces)?;
    }
    writeln!(out)
}

fn print_commands(
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
    let upto = if args.to_end { Upto::End } else { Upto::KnownCommit };
    let replayed = replay_all_kept(&args.data_dir, upto, Engine::new, |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
        bar.set_message(format!("{} commands, {} a second", progress.commands, progress.per_second()));
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
    for record in &state.instruments {
        writeln!(
            out,
            "{:<15} {} open orders, {} trades, tokens issued {} delivered {} expired {}",
            record.spec.symbol,
            state.book(record.id).map_or(0, BookView::len),
            record.trades,
            record.issued.0,
            record.delivered.0,
            record.expired.0
        )?;
    }
    Ok(())
}

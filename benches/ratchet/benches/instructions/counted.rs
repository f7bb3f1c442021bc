//! What alone is counted where a benchmark repeats something small: each of these functions, from its call to its return.
//!
//! The loop around them and the values that it makes, moves and drops are not. They were an eighth of some counts, and how they are
//! compiled, the measured function inlined among them or not, depends on what else this program holds. None of these is inlined, and
//! none is called while a benchmark is set up: that would be counted too.

use grid_engine::command::{DecodeError, Entry};
use grid_wire::{ExecutionReport, MAX_FRAME_LEN, Message, NewOrder, scan};
use gungraun::{Callgrind, EntryPoint, LibraryBenchmarkConfig};

/// Counts these functions and what they call.
pub(crate) fn these() -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.entry_point(EntryPoint::Custom(concat!(module_path!(), "::counted_*").into()));
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[inline(never)]
pub(crate) fn counted_encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    entry.encode(out);
}

#[inline(never)]
pub(crate) fn counted_decode_entry(form: &[u8]) -> Result<Entry, DecodeError> {
    Entry::decode(form)
}

#[inline(never)]
pub(crate) fn counted_encode_new_order(order: &NewOrder, out: &mut Vec<u8>) {
    order.encode(out);
}

#[inline(never)]
pub(crate) fn counted_encode_execution_report(report: &ExecutionReport, out: &mut Vec<u8>) {
    report.encode(out);
}

/// The message at the start of these bytes, and its length.
#[inline(never)]
pub(crate) fn counted_decode_frame(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let (frame, length) = scan(bytes, MAX_FRAME_LEN).ok()??;
    Some((Message::decode(&frame).ok()?, length))
}

//! Order scripts that a trader can write by hand, run against the real engine: the same form for `grid script`,
//! for the golden tests and for whoever wants to compare this book with another one.
//!
//! Input is JSON lines. `{"case":NAME}` starts a fresh book; then one order instruction per line:
//!
//! ```text
//! {"op":"limit","id":1,"owner":"ann","side":"sell","price":81,"qty":5}
//! {"op":"market","id":2,"owner":"bob","side":"buy","qty":7,"stp":"cancel_newest"}
//! {"op":"replace","id":1,"owner":"ann","price":80,"qty":3}
//! {"op":"cancel","id":1,"owner":"ann"}
//! ```
//!
//! | op | means |
//! |---|---|
//! | `limit`, `ioc`, `fok`, `post_only` | a limit order good till cancelled, or immediate, or whole at once, or never a taker |
//! | `market` | takes the other side until done or empty; a `price` is ignored |
//! | `cancel` | takes an open order out |
//! | `replace` | gives an open order a new open quantity and price; zero quantity cancels; a crossing price trades |
//!
//! Output is one JSON line per case, in compact form and always with these keys in this order:
//! `case, trades[{taker,maker,price,qty}], bids[[price,qty,orders]], asks[..], rejected[id], expired[id],
//! stp_cancelled[id]`; levels best first, lists in the order in which things happened.
//!
//! Choices that the form leaves open: ids and owners are integers or strings, echoed as given, and `1` is not `"1"`;
//! blank lines and unknown keys are passed over; lines before the first case belong to a case named `null`;
//! a negative, fractional or enormous price or quantity is an ordinary reject, a missing one is an error of the script.
//! Money never is the reason for a reject: each owner gets just what the next order can hold, just before it. For the
//! same reason the book runs on the ranks of a case's prices: order is all that matching asks of a price, and ranks keep
//! a billion Units at a billion ticks within the engine's money.

mod case;
mod line;

use std::io::{BufRead, Write};

use crate::case::Case;
use crate::line::{Line, Op};

/// Why a script could not be run to its end. Cases before it have been printed.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The line is not an instruction of this form.
    #[error("line {line}: {reason}")]
    NotUnderstood {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The script asks for more than the engine's bounds allow, which is not a fact about the book.
    #[error("line {line}: the venue could not provide for this order: {reason}")]
    Bound {
        /// Counted from 1.
        line: u64,
        /// The engine's own words.
        reason: String,
    },
    /// The script could not be read.
    #[error("line {line}: cannot read the script: {source}")]
    Read {
        /// Counted from 1.
        line: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The results could not be written.
    #[error("cannot write the results: {0}")]
    Write(#[from] std::io::Error),
}

/// Runs every case of a script and writes one result line for each as soon as it ends.
///
/// # Errors
/// At the first line that is not understood; the case that it stands in is not printed.
pub fn run(mut input: impl BufRead, mut out: impl Write) -> Result<(), ScriptError> {
    let mut case: Option<Lines> = None;
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        number += 1;
        let read = input
            .read_until(b'\n', &mut bytes)
            .map_err(|source| ScriptError::Read { line: number, source })?;
        if read == 0 {
            break;
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let not_understood = |reason| ScriptError::NotUnderstood { line: number, reason };
        match line::parse(text).map_err(not_understood)? {
            Line::Case(name) => {
                if let Some(done) = case.replace(Lines::of(name)) {
                    done.run(&mut out)?;
                }
            }
            Line::Op(op) => {
                case.get_or_insert_with(|| Lines::of(serde_json::Value::Null)).ops.push((number, op))
            }
        }
    }
    if let Some(done) = case {
        done.run(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

/// A case as it was read; it runs when its last line is known, because all its prices are needed for that.
struct Lines {
    name: serde_json::Value,
    ops: Vec<(u64, Op)>,
}

impl Lines {
    fn of(name: serde_json::Value) -> Self {
        Self { name, ops: Vec::new() }
    }

    fn run(self, out: &mut impl Write) -> Result<(), ScriptError> {
        let mut case = Case::new(self.name, self.ops.iter().filter_map(|(_, op)| op.action.price()));
        for (line, op) in self.ops {
            case.run(op).map_err(|reject| ScriptError::Bound { line, reason: reject.to_string() })?;
        }
        Ok(case.print(out)?)
    }
}

//! A whole venue with its inference tier, in a process of its own. Threads called `tier` are the tier's, its session at the order gateway included;
//! all others are the venue's core: order gateway, sequencer, journal, matcher, replica.

use std::path::Path;

use crate::Failure;
use crate::venue::Venue;

/// What a venue has settled in its life, as it says in its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Calls that were settled.
    pub(crate) settled: u64,
    /// Reservations that were given back.
    pub(crate) released: u64,
    /// Tokens billed.
    pub(crate) billed: u64,
    /// Reservations, calls and connections that are still there, none of which should be.
    pub(crate) open: u64,
}

impl Ended {
    /// From the last line.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { settled: next()?, released: next()?, billed: next()?, open: next()? })
    }
}

pub(super) fn run(dir: &Path, supplier: &str) -> Result<(), Failure> {
    let venue = Venue::start(dir, &[supplier.to_owned()], |_| {})?;
    super::ready(venue.address())?;
    super::until_the_end();
    let Ended { settled, released, billed, open } = venue.stop()?;
    println!("{settled} {released} {billed} {open}");
    Ok(())
}

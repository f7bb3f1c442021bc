//! Ports on loopback for programs of tests and benches that come back at the address at which they were killed, or that have
//! to be told their address.
//!
//! A port that the system chose is of no use for that: the system gives it, as soon as it is free, to any outgoing connection,
//! and the node that was killed cannot come back. These ports lie below those that Linux gives to outgoing connections
//! (`ip_local_port_range` begins at 32768), so that whoever gets one has named it. Nor does another process that asks here
//! name it: a process claims a whole block of ports by listening at the block's first, and the kernel gives the claim up with
//! the process, however it ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// All of them. Other programs may listen here too; their ports are passed over.
const NAMED: Range<u16> = 10_000..30_000;
/// Ports in a block, the claim's own among them.
const BLOCK: u16 = 100;
/// The most ports in a row.
pub const ROW_MAX: u16 = BLOCK - 1;

/// A claimed block.
struct Block {
    /// Nobody connects here; that it is bound is the claim.
    _claim: TcpListener,
    /// Those that were not asked for yet.
    left: Range<u16>,
}

/// The blocks of this process, claimed for as long as it runs; the last is the one in use.
static CLAIMED: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// The first of so many ports in a row, at most [`ROW_MAX`], which were free a moment ago and which nobody else gets from here.
///
/// # Errors
/// `AddrInUse` where no block has such a row.
pub fn in_a_row(count: u16) -> io::Result<u16> {
    assert!((1..=ROW_MAX).contains(&count), "a row has 1 to {ROW_MAX} ports, not {count}");
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = claimed.last_mut().and_then(|block| row(&mut block.left, count)) {
        return Ok(first);
    }
    for first in firsts() {
        let Ok(claim) = open(first) else { continue };
        let mut block = Block { _claim: claim, left: first + 1..first + BLOCK };
        if let Some(first) = row(&mut block.left, count) {
            claimed.push(block);
            return Ok(first);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// An address with such a port.
///
/// # Errors
/// As of [`in_a_row`].
pub fn address() -> io::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, in_a_row(1)?).into())
}

/// So many of them.
///
/// # Errors
/// As of [`in_a_row`].
pub fn addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    (0..count).map(|_| address()).collect()
}

/// Takes the first row of free ports out of those that are left, with all before it.
fn row(left: &mut Range<u16>, count: u16) -> Option<u16> {
    let mut found = 0;
    for port in left.clone() {
        found = if open(port).is_ok() { found + 1 } else { 0 };
        if found == count {
            left.start = port + 1;
            return Some(port + 1 - count);
        }
    }
    None
}

/// Where blocks begin. Each process goes round from a place of its own, so that few meet at the same.
fn firsts() -> impl Iterator<Item = u16> {
    let blocks = NAMED.len() as u32 / u32::from(BLOCK);
    (0..blocks).map(move |nth| {
        let block = std::process::id().wrapping_add(nth) % blocks;
        NAMED.start + block as u16 * BLOCK
    })
}

fn open(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nobody_gets_a_port_twice_and_every_port_can_be_listened_at() {
        let rows: Vec<_> = [1, 7, ROW_MAX, 70, 50, 1].map(|count| (in_a_row(count).unwrap(), count)).into();
        let singles: Vec<_> = addresses(150).unwrap().iter().map(SocketAddr::port).collect();
        let all: Vec<_> =
            rows.iter().flat_map(|&(first, count)| first..first + count).chain(singles).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        let listening: Vec<_> = all.iter().map(|&port| open(port).unwrap()).collect();
        assert!(listening.iter().all(|held| NAMED.contains(&held.local_addr().unwrap().port())));
    }

    #[test]
    fn a_row_stands_behind_a_port_that_someone_else_holds() {
        let first = in_a_row(6).unwrap();
        let mut left = first..first + 6;
        let held = open(first + 2).unwrap();
        assert_eq!(row(&mut left, 3), Some(first + 3), "two before it are too few");
        assert_eq!(row(&mut left, 1), None, "nothing is left behind it");
        drop(held);
    }

    #[test]
    fn a_block_that_is_claimed_is_claimed_against_everybody() {
        let port = in_a_row(1).unwrap();
        let claim = port - (port - NAMED.start) % BLOCK;
        assert_eq!(open(claim).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}

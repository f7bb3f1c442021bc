//! Units by origin: joined, taken from the front, and what part of their money goes with them.

use std::collections::VecDeque;

use grid_engine::limits;

/// Units of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tranche {
    pub(super) issuer: u32,
    pub(super) trade: u64,
    pub(super) qty: u64,
    pub(super) escrow: i64,
    pub(super) cost: i64,
}

/// The part of `whole` that belongs to the first `taken` of `of`, rounded down.
pub(super) fn share(whole: i64, taken: u64, of: u64) -> i64 {
    (i128::from(whole) * i128::from(taken) / i128::from(of)) as i64
}

pub(super) fn part(whole: i64, before: u64, after: u64, of: u64) -> i64 {
    share(whole, after, of) - share(whole, before, of)
}

pub(super) fn join(tranches: &mut VecDeque<Tranche>, new: Tranche) {
    if let Some(last) = tranches.back_mut()
        && last.issuer == new.issuer
        && last.trade == new.trade
    {
        last.qty += new.qty;
        last.escrow += new.escrow;
        last.cost += new.cost;
        return;
    }
    if tranches.len() >= limits::TRANCHES {
        let kin = |old: &&mut Tranche| old.issuer == new.issuer && (old.trade == 0) == (new.trade == 0);
        if let Some(old) = tranches.iter_mut().rev().find(kin) {
            old.qty += new.qty;
            old.escrow += new.escrow;
            old.cost += new.cost;
            return;
        }
    }
    tranches.push_back(new);
}

pub(super) fn take(tranches: &mut VecDeque<Tranche>, qty: u64) -> Vec<Tranche> {
    let (mut left, mut taken) = (qty, Vec::new());
    while left > 0 {
        let mut first = tranches.pop_front().expect("the model sells what is there");
        let now = first.qty.min(left);
        let piece = Tranche {
            qty: now,
            escrow: share(first.escrow, now, first.qty),
            cost: share(first.cost, now, first.qty),
            ..first
        };
        first.qty -= piece.qty;
        first.escrow -= piece.escrow;
        first.cost -= piece.cost;
        if first.qty > 0 {
            tranches.push_front(first);
        }
        left -= now;
        taken.push(piece);
    }
    taken
}

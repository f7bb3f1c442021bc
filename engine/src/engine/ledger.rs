//! What a fill moves: dollars from the buyer, Units with their origin from the seller, fees to the venue.
//!
//! ```text
//! first sale:  buyer ── value ──► escrow of the Units (paid to the supplier as it delivers)
//! resale:      buyer ── value ──► seller               (the Units keep the escrow of their first sale)
//! ```

use std::collections::VecDeque;

use super::Step;
use crate::command::AccountMode;
use crate::event::{Moved, Trade};
use crate::ids::{AccountId, InstrumentId, TradeId};
use crate::state::Tranche;
use crate::units::{Qty, Usd};

impl Step<'_> {
    /// Moves everything that one trade moves. `paid` leaves the buyer's held dollars.
    pub(super) fn settle_trade(
        &mut self,
        trade: &Trade,
        buyer: AccountId,
        seller: AccountId,
        to_consumption: bool,
        paid: Usd,
    ) {
        let fees = trade.maker_fee.plus(trade.taker_fee);
        let buyer_fee = paid.minus(trade.value);
        let proceeds = trade.value.minus(fees.minus(buyer_fee));
        let buyer_account = self.account_mut(buyer);
        buyer_account.usd_held = buyer_account.usd_held.minus(paid);
        let venue = self.account_mut(AccountId::VENUE);
        venue.usd_available = venue.usd_available.plus(fees);
        let bought = self.sell_units(trade, seller, proceeds);

        let mode = self.state.accounts[buyer.0 as usize].mode;
        if mode == AccountMode::Easy || to_consumption {
            self.open_lots(buyer, trade.instrument, bought, Moved::AtFill);
        } else {
            let holding = self.holding_mut(buyer, trade.instrument);
            holding.available = holding.available.plus(trade.qty);
            for tranche in bought {
                push_tranche(&mut holding.tranches, tranche);
            }
        }
    }

    /// Takes the sold Units from the seller's held ones, oldest first, pays for them, and returns them as the buyer
    /// will hold them.
    fn sell_units(&mut self, trade: &Trade, seller: AccountId, proceeds: Usd) -> Vec<Tranche> {
        let holding = self.holding_mut(seller, trade.instrument);
        holding.held = holding.held.minus(trade.qty);
        let sold = take_tranches(&mut holding.tranches, trade.qty);

        let (mut before, mut to_seller) = (0, Usd::ZERO);
        let mut bought = Vec::with_capacity(sold.len());
        for tranche in sold {
            let after = before + tranche.qty.0;
            let part = |whole: Usd| whole.share(after, trade.qty.0).minus(whole.share(before, trade.qty.0));
            let (cost, net) = (part(trade.value), part(proceeds));
            let first_sale = tranche.issuer == seller && tranche.trade == TradeId::default();
            let escrow = if first_sale {
                let supply = self.supply_mut(seller, trade.instrument);
                supply.escrow = supply.escrow.plus(net);
                net
            } else {
                to_seller = to_seller.plus(net);
                tranche.escrow
            };
            bought.push(Tranche { escrow, cost, trade: trade.trade, ..tranche });
            before = after;
        }
        let account = self.account_mut(seller);
        account.usd_available = account.usd_available.plus(to_seller);
        bought
    }

    pub(super) fn supply_mut(
        &mut self,
        supplier: AccountId,
        instrument: InstrumentId,
    ) -> &mut crate::state::Supply {
        let supplier = self.state.suppliers.get_mut(&supplier).expect("only suppliers issue and deliver");
        supplier.supply.entry(instrument).or_default()
    }
}

/// Takes `qty` Units from the front. A tranche that is split gives its escrow and cost in proportion, and keeps the
/// rest to the last nano-dollar.
pub(super) fn take_tranches(tranches: &mut VecDeque<Tranche>, qty: Qty) -> Vec<Tranche> {
    let mut taken = Vec::with_capacity(1);
    let mut left = qty;
    while !left.is_zero() {
        let front = tranches.front_mut().expect("available and held are the tranches' sum");
        if front.qty <= left {
            left = left.minus(front.qty);
            taken.push(*front);
            tranches.pop_front();
            continue;
        }
        let part = Tranche {
            qty: left,
            escrow: front.escrow.share(left.0, front.qty.0),
            cost: front.cost.share(left.0, front.qty.0),
            ..*front
        };
        front.qty = front.qty.minus(part.qty);
        front.escrow = front.escrow.minus(part.escrow);
        front.cost = front.cost.minus(part.cost);
        taken.push(part);
        left = Qty::ZERO;
    }
    taken
}

/// Adds Units at the back, joined with the last ones when they are of the same origin.
pub(super) fn push_tranche(tranches: &mut VecDeque<Tranche>, tranche: Tranche) {
    match tranches.back_mut() {
        Some(last) if last.issuer == tranche.issuer && last.trade == tranche.trade => {
            last.qty = last.qty.plus(tranche.qty);
            last.escrow = last.escrow.plus(tranche.escrow);
            last.cost = last.cost.plus(tranche.cost);
        }
        _ => tranches.push_back(tranche),
    }
}

//! What a fill moves: dollars from the buyer, Units with their origin from the seller, fees to the venue.
//!
//! ```text
//! first sale:  buyer ── value ──► escrow of the Units (paid to the supplier as it delivers)
//! resale:      buyer ── value ──► seller               (the Units keep the escrow of their first sale)
//! ```

use super::Step;
use crate::command::AccountMode;
use crate::event::{Moved, Trade};
use crate::ids::{AccountId, InstrumentId, TradeId};
use crate::state::{Supply, Tranche};
use crate::units::Usd;

/// Who buys in a trade, and what of its held dollars the trade moves.
pub(super) struct Buyer {
    pub(super) account: AccountId,
    /// No longer held: what is paid, and what goes back.
    pub(super) released: Usd,
    /// Price and fee.
    pub(super) paid: Usd,
    /// The Units go straight to consumption.
    pub(super) to_consumption: bool,
}

impl Step<'_> {
    /// Moves everything that one trade moves.
    pub(super) fn settle_trade(&mut self, trade: &Trade, seller: AccountId, buyer: Buyer) {
        let fees = trade.maker_fee.plus(trade.taker_fee);
        let buyer_fee = buyer.paid.minus(trade.value);
        let proceeds = trade.value.minus(fees.minus(buyer_fee));
        let account = self.account_mut(buyer.account);
        account.usd_held = account.usd_held.minus(buyer.released);
        account.usd_available = account.usd_available.plus(buyer.released.minus(buyer.paid));
        let to_consumption = buyer.to_consumption || account.mode == AccountMode::Easy;
        let venue = self.account_mut(AccountId::VENUE);
        venue.usd_available = venue.usd_available.plus(fees);
        let mut bought = std::mem::take(&mut self.scratch.tranches);
        self.sell_units(trade, seller, proceeds, &mut bought);

        if to_consumption {
            self.open_lots(buyer.account, trade.instrument, &bought, Moved::AtFill);
        } else {
            let holding = self.holding_mut(buyer.account, trade.instrument);
            holding.available = holding.available.plus(trade.qty);
            for &tranche in &bought {
                holding.push_tranche(tranche);
            }
        }
        bought.clear();
        self.scratch.tranches = bought;
    }

    /// Takes the sold Units from the seller's held ones, oldest first, pays for them, and leaves them in `sold` as the
    /// buyer will hold them.
    fn sell_units(&mut self, trade: &Trade, seller: AccountId, proceeds: Usd, sold: &mut Vec<Tranche>) {
        let holding = self.holding_mut(seller, trade.instrument);
        holding.held = holding.held.minus(trade.qty);
        holding.take_tranches(trade.qty, sold);

        let (mut to_seller, mut to_escrow) = (Usd::ZERO, Usd::ZERO);
        let (mut units, mut net_before, mut cost_before) = (0, Usd::ZERO, Usd::ZERO);
        for tranche in sold {
            units += tranche.qty.0;
            let (net_after, cost_after) =
                (proceeds.share(units, trade.qty.0), trade.value.share(units, trade.qty.0));
            let net = net_after.minus(net_before);
            let first_sale = tranche.issuer == seller && tranche.trade == TradeId::default();
            if first_sale {
                to_escrow = to_escrow.plus(net);
                tranche.escrow = net;
            } else {
                to_seller = to_seller.plus(net);
            }
            tranche.cost = cost_after.minus(cost_before);
            tranche.trade = trade.trade;
            (net_before, cost_before) = (net_after, cost_after);
        }
        if !to_escrow.is_zero() {
            let supply = self.supply_mut(seller, trade.instrument);
            supply.escrow = supply.escrow.plus(to_escrow);
        }
        let account = self.account_mut(seller);
        account.usd_available = account.usd_available.plus(to_seller);
        self.collect(seller);
    }

    /// Only suppliers issue and deliver, so there is one for each account that the callers name.
    pub(super) fn supply_mut(&mut self, supplier: AccountId, instrument: InstrumentId) -> &mut Supply {
        self.state.supplies.open(supplier, instrument, self.at)
    }
}

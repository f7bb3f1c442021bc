//! Orders, as a client asks for them; what became of them is in `reports`.

use crate::field::Tag;
use crate::values::*;

messages! {
    /// Enters an order.
    [20] NewOrder, 65 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's label, unique among the account's open orders; zero for none.
        label: u128,
        /// Limit in ticks per Unit; zero for market.
        price: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// The instrument.
        instrument: u16,
        /// How far a market order may go from the best price, basis points.
        max_slippage_bps: Option<u16>,
        /// Buy or sell.
        side: Side,
        /// Limit or market.
        order_type: OrderType,
        /// How long it stays.
        time_in_force: TimeInForce,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
    }
    /// Enters an order with a text of the client's own beside its label.
    [21] NewOrderTagged, 129 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's label, unique among the account's open orders; zero for none.
        label: u128,
        /// Limit in ticks per Unit; zero for market.
        price: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// The instrument.
        instrument: u16,
        /// How far a market order may go from the best price, basis points.
        max_slippage_bps: Option<u16>,
        /// Buy or sell.
        side: Side,
        /// Limit or market.
        order_type: OrderType,
        /// How long it stays.
        time_in_force: TimeInForce,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
        /// The text.
        tag: Tag,
    }
    /// Cancels one order, by its id or by its label.
    [22] CancelOrder, 48 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The label; zero to go by id.
        label: u128,
        /// The order; zero to go by label.
        order_id: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
    }
    /// Replaces open quantity and price of one order, atomically.
    [23] ReplaceOrder, 66 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The label; zero to go by id.
        label: u128,
        /// The order; zero to go by label.
        order_id: u64,
        /// New limit in ticks per Unit.
        price: u64,
        /// New open quantity in Units; zero cancels.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options.
        flags: OrderFlags,
    }
    /// Cancels many orders.
    [24] MassCancel, 28 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Only in this instrument; absent for all.
        instrument: Option<u16>,
        /// Only on this side.
        side: SideScope,
        /// The account's orders, or this session's.
        scope: CancelScope,
    }
}

impl NewOrder {
    /// The same order with a text.
    pub fn tagged(self, tag: Tag) -> NewOrderTagged {
        let Self {
            client_seq,
            sending_time,
            label,
            price,
            qty,
            account,
            valid_for_us,
            instrument,
            max_slippage_bps,
            side,
            order_type,
            time_in_force,
            self_trade,
            flags,
        } = self;
        NewOrderTagged {
            client_seq,
            sending_time,
            label,
            price,
            qty,
            account,
            valid_for_us,
            instrument,
            max_slippage_bps,
            side,
            order_type,
            time_in_force,
            self_trade,
            flags,
            tag,
        }
    }
}

impl NewOrderTagged {
    /// The order without its text.
    pub fn order(&self) -> NewOrder {
        NewOrder {
            client_seq: self.client_seq,
            sending_time: self.sending_time,
            label: self.label,
            price: self.price,
            qty: self.qty,
            account: self.account,
            valid_for_us: self.valid_for_us,
            instrument: self.instrument,
            max_slippage_bps: self.max_slippage_bps,
            side: self.side,
            order_type: self.order_type,
            time_in_force: self.time_in_force,
            self_trade: self.self_trade,
            flags: self.flags,
        }
    }
}

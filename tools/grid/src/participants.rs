//! Who takes part in a demo, and with what.

use std::time::Duration;

use grid_engine::command::AccountMode;
use grid_engine::{Qty, Usd};

/// A participant that only needs an account.
pub(crate) struct Trader {
    pub(crate) name: &'static str,
    pub(crate) mode: AccountMode,
    pub(crate) money: Usd,
}

/// In the order in which their accounts are opened.
pub(crate) const TRADERS: [Trader; 3] = [
    // As much as the sign-up credit (contract §4.6), but paid in: the demo is to be tried out without the free tier's limits.
    Trader { name: "demo", mode: AccountMode::Easy, money: Usd::dollars(25) },
    Trader { name: "trader", mode: AccountMode::Advanced, money: Usd::dollars(10_000) },
    Trader { name: "maker", mode: AccountMode::Advanced, money: Usd::dollars(1_000_000) },
];

/// A simulated supplier: how it serves and at what price it offers.
pub(crate) struct SupplierTraits {
    pub(crate) name: &'static str,
    pub(crate) ttft: Duration,
    pub(crate) tokens_per_second: u32,
    /// Calls that it fails before the first byte.
    pub(crate) error_rate: f64,
    /// Its ask over the reference price, in hundredths of a percent.
    pub(crate) premium_bps: u64,
}

/// Different speed, price and reliability. The first is the `supplier` of the ready file.
pub(crate) const SUPPLIERS: [SupplierTraits; 3] = [
    SupplierTraits {
        name: "steady",
        ttft: Duration::from_millis(60),
        tokens_per_second: 400,
        error_rate: 0.0,
        premium_bps: 250,
    },
    SupplierTraits {
        name: "swift",
        ttft: Duration::from_millis(20),
        tokens_per_second: 1_200,
        error_rate: 0.01,
        premium_bps: 600,
    },
    SupplierTraits {
        name: "thrift",
        ttft: Duration::from_millis(150),
        tokens_per_second: 150,
        error_rate: 0.05,
        premium_bps: 125,
    },
];

/// Units that a supplier may have outstanding of each instrument.
pub(crate) const CAPACITY: Qty = Qty(100_000);
/// What a supplier has behind each instrument that it delivers.
pub(crate) const COLLATERAL: Usd = Usd::dollars(500);
/// The managed supplier's price over the reference price, in hundredths of a percent.
pub(crate) const MANAGED_PREMIUM_BPS: u64 = 5_000;
/// Units that a supplier keeps on offer of each live instrument.
pub(crate) const ON_OFFER: Qty = Qty(500);
/// Units that the market maker buys of each live instrument before it quotes.
pub(crate) const MAKER_STOCK: Qty = Qty(200);

/// The reference price raised by a premium, in ticks, at least one tick above it.
pub(crate) fn ask_ticks(reference_ticks: u64, premium_bps: u64) -> u64 {
    (reference_ticks * (10_000 + premium_bps)).div_ceil(10_000).max(reference_ticks + 1)
}

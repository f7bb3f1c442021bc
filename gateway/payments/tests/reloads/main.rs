//! Reloads from the engine to a payment provider and back: the real engine, the real adapter, and in Stripe's place a
//! server on loopback that keeps idempotency keys as Stripe does and misbehaves on demand.

mod stand_in;
mod stripe;
mod venue;
mod worker;

//! Carries reloads out. The engine decides when one is due and how much it is; here somebody is asked for the money, and
//! what came of it is entered as a command.
//!
//! ```text
//! log ─► replica: reload 7 of account 12 is due, $20 ─► worker ─► provider, under the key of reload 7
//! log ◄─ ReloadPaid { 7, $20 } or ReloadFailed { 7 } ◄─┘
//! ```
//!
//! A reload is charged once and minted once, whatever dies in between. What is under way is engine state, so a worker has
//! nothing of its own to lose: a new one finds the reload there and asks the provider again, under the same key, for
//! which the provider charges once and answers the same. The command names the reload, and the engine ends a reload
//! once. So several workers do no harm either.
//!
//! | module | holds |
//! |---|---|
//! | [`provider`] | who can be asked, and what can come of it |
//! | [`house`] | the venue's own lines of credit |
//! | [`stripe`] | cards, through Stripe's PaymentIntents |
//! | [`worker`] | what is due, asked for until it has an end |
//! | [`venue`] | the real venue: a session of the operator, a replica |

mod form;
pub mod house;
pub mod provider;
pub mod stripe;
pub mod venue;
pub mod worker;

pub use house::House;
pub use provider::{Charge, Outcome, Pending, Provider};
pub use stripe::{SecretKey, Stripe, StripeSettings};
pub use worker::{EnterError, Providers, Settings, Venue, Worker};

//! The tier from outside: real HTTP clients before it, real HTTP suppliers behind it, a venue that notes what it is
//! asked. One binary, so that it is linked once.

mod aborts;
mod calls;
mod clients;
mod compat;
mod contract;
mod dialects;
mod dispatch;
mod edges;
mod faults;
mod market;
mod money;
mod probe;
mod receipts;
mod routing;
mod sdk;
mod search;
mod service;
mod simulated;
mod support;

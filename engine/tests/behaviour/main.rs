//! The engine from the outside: commands in, events out.
//!
//! | room | what it proves |
//! |---|---|
//! | `rules` | every rule of the contract's §3 and §4, as scripts that a trader can read (`tests/rules/*.txt`) |
//! | `rejects` | each "no", and that the checks run in the order in which the rejects are declared |
//! | `oracle` | a million random commands against `naive`, a book that is obviously right and slow |
//! | `wide` | another million on books of thousands of levels, whose windows come, grow, move and go |
//! | `quotes` | random mass quotes, each against its parts done one by one |
//! | `mixed` | random commands of every kind: invariants after each, at most once, snapshots, replay |
//!
//! One binary, because linking takes longer than running. Shared: `venue` (an engine with sessions) and `dice`.

mod dice;
mod mixed;
mod naive;
mod oracle;
mod quotes;
mod rejects;
mod rules;
mod venue;
mod wide;

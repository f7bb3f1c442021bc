//! What a query string asks for, or a 422 that names the member that can't be meant.

use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, KeyHash, KeyId, Nanos};
use grid_history::ids::{self, Kind};
use grid_history::{Stage, UsageFilter, UsageRow, time};

use crate::reply::Refusal;

/// Parameters looked at; more are passed over.
const PARAMETERS_MAX: usize = 64;

/// A parsed query string.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes()).into_owned();
        Self(pairs.take(PARAMETERS_MAX).collect())
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key.strip_suffix("[]").unwrap_or(key) == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn moment(&self, name: &'static str) -> Result<Option<Nanos>, Refusal> {
        let read = |text| {
            time::parse(text)
                .ok_or_else(|| Refusal::field(name, format!("{name} is neither ISO 8601 nor Unix seconds")))
        };
        self.get(name).map(read).transpose()
    }

    /// One of `words`, where it is said.
    pub(super) fn word(
        &self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, Refusal> {
        let read = |text: &str| {
            let found = words.iter().copied().find(|word| *word == text);
            found.ok_or_else(|| Refusal::field(name, format!("{name} must be one of {}", words.join(", "))))
        };
        self.get(name).map(read).transpose()
    }
}

/// Which calls are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Of those that are over; `None` where none of them can match.
    pub(super) over: Option<UsageFilter>,
    /// Those in progress too.
    pub(super) open: bool,
    pub(super) from: Option<Nanos>,
    pub(super) to: Option<Nanos>,
    instrument: Option<InstrumentId>,
    key: Option<KeyId>,
}

impl Wanted {
    /// Reads the filters that lists and summaries share, in the light of what the account has.
    pub(super) fn read(query: &Query, state: &State, account: AccountId) -> Result<Self, Refusal> {
        let (from, to) = (query.moment("from")?, query.moment("to")?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(Refusal::field("from", "from is later than to"));
        }
        let status = query.word("status", &["pending", "reconciled", "error"])?;
        let cost = query.word("cost_status", &["pending", "reconciled", "unpriced", "cancelled"])?;
        // A model or key that the account never used matches nothing; that is no error.
        let symbol = query.get("model").map(str::to_ascii_lowercase);
        let instrument = symbol.map(|symbol| state.symbols.get(&symbol).copied());
        let key = query.get("api_key_id").map(|text| key_of(state, account, text));
        let nothing = instrument == Some(None) || key == Some(None);
        let (instrument, key) = (instrument.flatten(), key.flatten());
        let (by_status, by_cost) = (stage_of(status), stage_of(cost));
        let settled = match (by_status.settled, by_cost.settled) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => Some(one.or(other)),
        };
        let over = settled.filter(|_| !nothing && by_status.over && by_cost.over);
        let priced = match cost {
            Some("reconciled") => Some(true),
            Some("unpriced") => Some(false),
            _ => None,
        };
        let over = over.map(|settled| UsageFilter { from, to, settled, priced, instrument, key });
        Ok(Self { over, open: !nothing && by_status.open && by_cost.open, from, to, instrument, key })
    }

    /// Whether a call in progress is wanted.
    pub(super) fn passes(&self, row: &UsageRow) -> bool {
        self.open
            && row.stage == Stage::Open
            && self.from.is_none_or(|from| row.reserved_at >= from)
            && self.to.is_none_or(|to| row.reserved_at < to)
            && self.instrument.is_none_or(|instrument| row.instrument == instrument)
            && self.key.is_none_or(|key| row.key == key)
    }
}

struct Stages {
    open: bool,
    over: bool,
    settled: Option<bool>,
}

/// Which stages a status can mean.
fn stage_of(status: Option<&str>) -> Stages {
    match status {
        None => Stages { open: true, over: true, settled: None },
        Some("pending") => Stages { open: true, over: false, settled: None },
        Some("error" | "cancelled") => Stages { open: false, over: true, settled: Some(false) },
        Some(_) => Stages { open: false, over: true, settled: Some(true) },
    }
}

/// The account's key with this public id.
fn key_of(state: &State, account: AccountId, text: &str) -> Option<KeyId> {
    let head = ids::decode(Kind::ApiKey, text)?;
    let mut least = [0; 32];
    least[..8].copy_from_slice(&head.to_be_bytes());
    let mut same_head = state.consumption_keys.range(KeyHash(least)..);
    let (_, key) = same_head
        .by_ref()
        .take_while(|(hash, _)| ids::head(&hash.0) == head)
        .find(|(_, key)| key.account == account)?;
    Some(key.id)
}

//! Calls summed up: in all, and by day, model or key.

use std::collections::BTreeMap;

use grid_engine::units::DAY;
use grid_engine::{AccountId, Nanos};
use grid_history::time::{self, iso};
use grid_history::{UsageFilter, UsageRow, UsageSum};
use serde_json::{Value, json};

use super::filter::{Query, Wanted};
use super::{broken, history, in_progress, key_name, symbol};
use crate::reply::Refusal;
use crate::server::Tier;

/// How far back a summary goes when nobody says, and at most.
const SPAN_DEFAULT: Nanos = Nanos(30 * DAY);
const SPAN_MAX: Nanos = Nanos(31 * DAY);
/// Groups that are told.
const BUCKETS_MAX: usize = 100;

/// Sums of some calls.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    over: UsageSum,
    pending: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        let (sum, more) = (&mut self.over, &other.over);
        sum.requests += more.requests;
        sum.cancelled += more.cancelled;
        sum.unpriced += more.unpriced;
        sum.prompt_tokens += more.prompt_tokens;
        sum.completion_tokens += more.completion_tokens;
        sum.billed += more.billed;
        sum.unpriced_tokens += more.unpriced_tokens;
        sum.cost = sum.cost.plus(more.cost);
        self.pending += other.pending;
    }

    fn json(&self, key: Option<&str>) -> Value {
        let sum = &self.over;
        let mut told = key.map_or_else(|| json!({}), |key| json!({"key": key}));
        let members = json!({
            "request_count": sum.requests + self.pending,
            "input_tokens": sum.prompt_tokens,
            "output_tokens": sum.completion_tokens,
            "total_tokens": sum.prompt_tokens + sum.completion_tokens,
            "cost": {
                "reconciled_amount": sum.cost.to_string(),
                "currency": "USD",
                "reconciled_requests": sum.requests - sum.cancelled - sum.unpriced,
                "pending_requests": self.pending,
                "unpriced_requests": sum.unpriced,
                "cancelled_requests": sum.cancelled,
                "unpriced_tokens": sum.unpriced_tokens,
            },
        });
        if let (Value::Object(told), Value::Object(members)) = (&mut told, members) {
            told.extend(members);
        }
        told
    }
}

/// `GET /v1/usage/summary`.
pub(super) async fn answer(tier: &Tier, account: AccountId, query: &Query) -> Result<Value, Refusal> {
    let mut wanted = tier.directory.read(|state| Wanted::read(query, state, account))?;
    let group = query.word("group_by", &["day", "model", "api_key"])?;
    let to = wanted.to.unwrap_or_else(time::now);
    let from = wanted.from.unwrap_or(Nanos(to.0.saturating_sub(SPAN_DEFAULT.0)));
    if from > to {
        return Err(Refusal::field("from", "from is later than to"));
    }
    if to.0 - from.0 > SPAN_MAX.0 {
        return Err(Refusal::field("from", "from and to are more than 31 days apart"));
    }
    (wanted.from, wanted.to) = (Some(from), Some(to));
    let (seq, open) = in_progress(tier, account, |row| wanted.passes(row));
    let mut sums = Vec::new();
    if let Some(filter) = wanted.over {
        let filter = UsageFilter { from: wanted.from, to: wanted.to, ..filter };
        let over = history(tier, seq).await?.usage_sums(account, filter).await.map_err(broken)?;
        sums.extend(over.into_iter().map(|over| Sums { over, pending: 0 }));
    }
    sums.extend(open.iter().map(pending));
    let mut totals = Sums::default();
    let mut buckets = BTreeMap::<String, Sums>::new();
    tier.directory.read(|state| {
        for sum in &sums {
            totals.add(sum);
            let key = match group {
                Some("day") => iso(Nanos(sum.over.day * DAY))[..10].to_owned(),
                Some("model") => symbol(state, sum.over.instrument),
                Some(_) => key_name(state, sum.over.key).unwrap_or_default(),
                None => continue,
            };
            buckets.entry(key).or_default().add(sum);
        }
    });
    let mut told = json!({
        "totals": totals.json(None),
        "group_by": group,
        "from": iso(from),
        "to": iso(to),
    });
    if group.is_some() {
        let shown = buckets.iter().take(BUCKETS_MAX).map(|(key, sums)| sums.json(Some(key)));
        told["buckets"] = shown.collect();
    }
    Ok(told)
}

fn pending(row: &UsageRow) -> Sums {
    let over = UsageSum {
        day: row.reserved_at.0 / DAY,
        instrument: row.instrument,
        key: row.key,
        ..UsageSum::default()
    };
    Sums { over, pending: 1 }
}

//! What the venue's terms allow an account, told to clients in the headers that they already read: OpenAI's, Anthropic's
//! and the venue's own (contract §4.6, §5.13).

use std::time::Duration;

use grid_engine::state::{Allowance, State};
use grid_engine::{AccountId, Reject};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::reply::{Refusal, Surface};

/// For the end of one of the account's own calls; nobody knows when that is.
const CALL: Duration = Duration::from_secs(1);

/// A limit on requests, how much of it is left, and when it is whole again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: u32,
    remaining: u32,
    /// From now.
    whole_in: Duration,
    /// Seconds since 1970.
    whole_at: u64,
}

impl Quota {
    /// Of an account's calls of today, where they are limited.
    pub(crate) fn of_day(state: &State, account: AccountId) -> Option<Self> {
        if state.terms.free_calls_per_day == 0 {
            return None;
        }
        let now = state.now;
        let Allowance { per_day, today, .. } = state.allowance(account, now)?;
        let (limit, midnight) = (per_day?, now.next_midnight());
        Some(Self {
            limit,
            remaining: limit.saturating_sub(today),
            whole_in: Duration::from_nanos(midnight.0 - now.0),
            whole_at: midnight.0 / grid_engine::SECOND,
        })
    }

    /// What is left after one call more.
    pub(crate) const fn after_one(self) -> Self {
        Self { remaining: self.remaining.saturating_sub(1), ..self }
    }

    /// Adds the headers that a client of this surface reads.
    pub(crate) fn tell(&self, surface: Surface, headers: &mut HeaderMap) {
        let seconds = self.whole_in.as_millis().div_ceil(1_000);
        let (names, reset) = match surface {
            Surface::OpenAi => (
                [
                    "x-ratelimit-limit-requests",
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-reset-requests",
                ],
                format!("{seconds}s"),
            ),
            Surface::Anthropic => (
                [
                    "anthropic-ratelimit-requests-limit",
                    "anthropic-ratelimit-requests-remaining",
                    "anthropic-ratelimit-requests-reset",
                ],
                rfc3339(self.whole_at),
            ),
        };
        let values = [self.limit.to_string(), self.remaining.to_string(), reset];
        let own = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
        let own_values = [self.limit.to_string(), self.remaining.to_string(), seconds.to_string()];
        let all = names.into_iter().zip(values).chain(own.into_iter().zip(own_values));
        for (name, value) in all {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// 2026-01-02T00:00:00Z. Only midnights are told, so the time of day is always that.
fn rfc3339(seconds: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    // `Fri, 02 Jan 2026 00:00:00 GMT`
    let http = httpdate::fmt_http_date(at);
    let part = |from: usize, to: usize| http.get(from..to).unwrap_or_default();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == part(8, 11)).map_or(0, |at| at + 1);
    format!("{}-{month:02}-{}T{}Z", part(12, 16), part(5, 7), part(17, 25))
}

/// 429 for a call beyond what the terms allow.
pub(crate) fn refusal(state: &State, account: AccountId, reject: Reject) -> Refusal {
    let too_many = |code, message: String, after| Refusal {
        retry_after: Some(after),
        quota: Quota::of_day(state, account),
        ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, code, message)
    };
    let allowance = state.allowance(account, state.now);
    if reject == Reject::FreeTierSpent {
        let limit = allowance.and_then(|allowance| allowance.per_day).unwrap_or(0);
        let after = Duration::from_nanos(state.now.next_midnight().0 - state.now.0);
        let message = format!(
            "the {limit} free calls of this UTC day are used up; a first deposit lifts the limit, or come back tomorrow"
        );
        return too_many("free_tier_limit_reached", message, after);
    }
    let limit = allowance.and_then(|allowance| allowance.at_once).unwrap_or(0);
    let message = format!("this account may have {limit} calls in progress at once; more with each deposit");
    too_many("concurrency_limit_reached", message, CALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_midnight_is_told_as_anthropic_tells_it() {
        for (seconds, text) in [
            (1_767_312_000, "2026-01-02T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_798_675_200, "2026-12-31T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}

//! How long a supplier wants to be left alone, and how long a client waits, in whichever of the usual headers they say
//! so.

use std::time::{Duration, SystemTime};

use hyper::HeaderMap;

/// From a refusal: `retry-after-ms`, `retry-after` (seconds, or a date), or the reset of the limit that ran out.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1_000.0).ok();
    }
    if let Some(after) = text("retry-after") {
        if let Ok(seconds) = after.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        if let Ok(date) = httpdate::parse_http_date(after) {
            return Some(date.duration_since(SystemTime::now()).unwrap_or_default());
        }
    }
    exhausted(headers)
}

/// From any answer: until when a limit is used up, where the supplier says that nothing of it remains.
fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    allowance(headers).filter(|allowance| allowance.calls == 0).map(|allowance| allowance.resets)
}

/// What a supplier says is left of its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Calls that may still begin; none where its limit of tokens is used up.
    pub(crate) calls: u32,
    /// When its limit starts anew.
    pub(crate) resets: Duration,
}

/// From any answer: how many calls are left until when, where the supplier says both.
pub(crate) fn allowance(headers: &HeaderMap) -> Option<Allowance> {
    let text = |name: &'static str| headers.get(name)?.to_str().ok().map(str::trim);
    let limit = |remaining: &'static str, reset: &'static str| {
        let calls = text(remaining)?.parse::<u64>().ok()?;
        Some(Allowance {
            calls: u32::try_from(calls).unwrap_or(u32::MAX),
            resets: text(reset).and_then(span)?,
        })
    };
    let calls = limit("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
    let tokens = limit("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
    let spent = [calls, tokens].into_iter().flatten().filter(|limit| limit.calls == 0);
    // How many calls are in the remaining tokens nobody knows.
    spent.max_by_key(|limit| limit.resets).or(calls)
}

/// From a client's request: how long it waits for an answer, in seconds. OpenAI's and Anthropic's libraries say so.
pub(crate) fn of_client(headers: &HeaderMap) -> Option<Duration> {
    let said = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = said("x-stainless-read-timeout").or_else(|| said("x-stainless-timeout"))?;
    Duration::try_from_secs_f64(seconds).ok().filter(|patience| !patience.is_zero())
}

/// `1s`, `6m0s`, `20ms`, `1h30m`, or bare seconds.
fn span(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (hyper::header::HeaderName::from_static(name), hyper::header::HeaderValue::from_static(value))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn every_usual_header_is_understood() {
        let millis = |pairs: &[_]| asked(&headers(pairs)).map(|pause| pause.as_millis());
        assert_eq!(millis(&[]), None);
        assert_eq!(millis(&[("retry-after", "3")]), Some(3_000));
        assert_eq!(millis(&[("retry-after", "0.5")]), Some(500));
        assert_eq!(millis(&[("retry-after", "9"), ("retry-after-ms", "120")]), Some(120));
        assert_eq!(millis(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(0));
        assert_eq!(millis(&[("retry-after", "soon")]), None);
        assert_eq!(millis(&[("retry-after", "-4")]), None);
        let remaining = ("x-ratelimit-remaining-requests", "0");
        for (reset, wanted) in
            [("1s", 1_000), ("6m0s", 360_000), ("20ms", 20), ("1h0m1s", 3_601_000), ("7", 7_000)]
        {
            assert_eq!(millis(&[remaining, ("x-ratelimit-reset-requests", reset)]), Some(wanted), "{reset}");
        }
        assert_eq!(millis(&[remaining, ("x-ratelimit-reset-requests", "1 fortnight")]), None);
        let some_left = [("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "9s")];
        assert_eq!(exhausted(&headers(&some_left)), None);
    }

    #[test]
    fn what_is_left_of_a_limit_is_told_by_any_answer() {
        let left = |calls, seconds| Some(Allowance { calls, resets: Duration::from_secs(seconds) });
        let requests = |count| ("x-ratelimit-remaining-requests", count);
        let (reset, tokens_reset) =
            (("x-ratelimit-reset-requests", "2s"), ("x-ratelimit-reset-tokens", "9s"));
        for (pairs, expected) in [
            (vec![], None),
            (vec![requests("3")], None),
            (vec![requests("3"), reset], left(3, 2)),
            (vec![requests("99999999999"), reset], left(u32::MAX, 2)),
            (vec![requests("some"), reset], None),
            (vec![requests("3"), reset, ("x-ratelimit-remaining-tokens", "0"), tokens_reset], left(0, 9)),
            (vec![requests("0"), reset, ("x-ratelimit-remaining-tokens", "0"), tokens_reset], left(0, 9)),
            (vec![requests("0"), reset, ("x-ratelimit-remaining-tokens", "50"), tokens_reset], left(0, 2)),
            (vec![("x-ratelimit-remaining-tokens", "50"), tokens_reset], None),
        ] {
            assert_eq!(allowance(&headers(&pairs)), expected, "{pairs:?}");
        }
    }
}

//! How long a supplier wants to be left alone, in whichever of the usual headers it says so.

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
pub(crate) fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: String| headers.get(name)?.to_str().ok().map(str::trim);
    let resets = ["requests", "tokens"].into_iter().filter_map(|of| {
        let remaining = text(format!("x-ratelimit-remaining-{of}"))?;
        (remaining == "0").then(|| text(format!("x-ratelimit-reset-{of}")).and_then(span))?
    });
    resets.max()
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
}

//! Moments as people and clients write them: ISO 8601 in UTC, or Unix seconds (contract §5.2).
//!
//! Written with milliseconds where there are any, and without a fraction where there are none, as the contract's
//! samples are. Read back: any offset, any number of fractional digits, or a bare date.

use grid_engine::Nanos;
use grid_engine::units::{DAY, SECOND};

/// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u64, day as u64)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// ISO 8601 in UTC: `2026-08-01T10:00:00Z`, `2026-08-01T10:00:00.120Z`.
#[must_use]
pub fn iso(at: Nanos) -> String {
    let (year, month, day) = civil((at.0 / DAY) as i64);
    let in_day = at.0 % DAY / SECOND;
    let (hour, minute, second) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    let millis = at.0 % SECOND / 1_000_000;
    if millis == 0 {
        return format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    }
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// ISO 8601, or `null` for 0, which stands for never.
#[must_use]
pub fn iso_or_null(at: Nanos) -> serde_json::Value {
    if at.is_zero() { serde_json::Value::Null } else { iso(at).into() }
}

/// Reads ISO 8601 or Unix seconds.
#[must_use]
pub fn parse(text: &str) -> Option<Nanos> {
    let text = text.trim();
    if !text.is_ascii() || text.is_empty() || text.len() > 40 {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let nanos = crate::decimal::parse_scaled(text, 9).ok()?;
        return i64::try_from(nanos).ok().map(|nanos| Nanos(nanos as u64));
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if text.get(4..5)? != "-" || text.get(7..8)? != "-" || !(1..=12).contains(&month) {
        return None;
    }
    let next_month = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    let day_number = days(year, month, day);
    if day < 1 || day_number >= next_month {
        return None;
    }
    let mut seconds = day_number * 86_400;
    let mut nanos = 0;
    let mut rest = text.get(10..)?;
    if !rest.is_empty() {
        if !rest.starts_with(['T', 't', ' ']) || text.get(13..14)? != ":" {
            return None;
        }
        let (hour, minute) = (number(11..13)?, number(14..16)?);
        rest = text.get(16..)?;
        let mut second = 0;
        if rest.starts_with(':') {
            second = number(17..19)?;
            rest = text.get(19..)?;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if let Some(fraction) = rest.strip_prefix('.') {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            let nine: String = fraction[..digits].chars().chain("000000000".chars()).take(9).collect();
            nanos = nine.parse().ok()?;
            rest = &fraction[digits..];
        }
        seconds += hour * 3_600 + minute * 60 + second - offset(rest)?;
    }
    let seconds = u64::try_from(seconds).ok()?;
    // A date beyond what nanoseconds hold (2262) is as good as the end of time.
    Some(Nanos(seconds.saturating_mul(SECOND).saturating_add(nanos).min(i64::MAX as u64)))
}

/// Seconds east of UTC: `Z`, nothing, `+02:00`, `-0530`. A `+` may arrive as the space it means in a query.
fn offset(text: &str) -> Option<i64> {
    if text.is_empty() || text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match text.as_bytes()[0] {
        b'+' | b' ' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// The start of the calendar month that holds this moment, and the start of the one after.
#[must_use]
pub fn month(at: Nanos) -> (Nanos, Nanos) {
    let (year, month, _) = civil((at.0 / DAY) as i64);
    let start = days(year, month as i64, 1);
    let end = if month == 12 { days(year + 1, 1, 1) } else { days(year, month as i64 + 1, 1) };
    (Nanos(start as u64 * DAY), Nanos(end as u64 * DAY))
}

/// Now, by the machine's clock. Only for windows of a read and for the age of a signature; never for state.
#[must_use]
pub fn now() -> Nanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Nanos(since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_the_samples_do() {
        let at = parse("2026-08-01T10:00:00Z").expect("a sample");
        assert_eq!(iso(at), "2026-08-01T10:00:00Z");
        assert_eq!(iso(Nanos(at.0 + 120_999_999)), "2026-08-01T10:00:00.120Z");
        assert_eq!(iso(Nanos(0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_written_form_of_a_moment_is_read() {
        let at = Some(Nanos(1_785_578_400 * SECOND));
        for text in [
            "2026-08-01T10:00:00Z",
            "2026-08-01t10:00:00z",
            "2026-08-01 10:00:00",
            "2026-08-01T10:00",
            "2026-08-01T12:00:00+02:00",
            "2026-08-01T12:00:00 02:00",
            "2026-08-01T04:30:00.000-0530",
            "1785578400",
            "1785578400.0",
        ] {
            assert_eq!(parse(text), at, "{text}");
        }
        assert_eq!(parse("2999-01-01"), Some(Nanos(i64::MAX as u64)), "far away, and no error");
        assert_eq!(parse("2024-02-29"), Some(Nanos(1_709_164_800 * SECOND)));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-08-01T25:00:00Z",
            "2026-08-01T10:00:00.Z",
            "2026-08-01X",
            "2026-08-01T10:00:00Q",
            "99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn months_have_their_calendar_length() {
        let (start, end) = month(parse("2026-02-14T03:00:00Z").expect("a moment"));
        assert_eq!((iso(start), iso(end)), ("2026-02-01T00:00:00Z".into(), "2026-03-01T00:00:00Z".into()));
        let (_, end) = month(parse("2026-12-31T23:59:59Z").expect("a moment"));
        assert_eq!(iso(end), "2027-01-01T00:00:00Z");
    }
}

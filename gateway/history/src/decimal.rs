//! Decimal text to whole numbers and back, exactly: no float ever holds a price or a quantity.
//!
//! Clients send decimals as JSON strings or numbers (`"0.81"`, `0.81`, `"45.50000000"`, `8.1e-1`); both are read from
//! their text. Off-tick is a different answer from malformed, so the error says which.

use grid_engine::units::NANOS_PER_USD;
use grid_engine::{Price, Qty, Usd};

/// Why text is not the number that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a decimal number.
    #[error("is not a decimal number")]
    Malformed,
    /// Zero or below.
    #[error("must be above zero")]
    NotPositive,
    /// Between two multiples of the step.
    #[error("is not a multiple of the step")]
    OffStep,
    /// Too large to be held.
    #[error("is too large")]
    TooLarge,
}

/// Reads decimal text as a multiple of 10^-`places`. Digits below that must be zeros.
pub fn parse_scaled(text: &str, places: i32) -> Result<i128, DecimalError> {
    let text = text.trim();
    if text.is_empty() || text.len() > 64 {
        return Err(DecimalError::Malformed);
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.parse::<i16>().map_err(|_| DecimalError::Malformed)?)
        }
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && part.is_empty() || (mantissa.contains('.') && part.is_empty()) {
        return Err(DecimalError::Malformed);
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(part.bytes()) {
        let digit = char::from(byte).to_digit(10).ok_or(DecimalError::Malformed)?;
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit.into()))
            .ok_or(DecimalError::TooLarge)?;
    }
    let shift = places + i32::from(exponent) - part.len() as i32;
    if value != 0 {
        for _ in 0..shift.max(0) {
            value = value.checked_mul(10).ok_or(DecimalError::TooLarge)?;
        }
        for _ in 0..(-shift).max(0) {
            if value % 10 != 0 {
                return Err(DecimalError::OffStep);
            }
            value /= 10;
        }
    }
    Ok(if negative { -value } else { value })
}

/// Reads a price in dollars per Unit as ticks.
pub fn parse_price(text: &str, tick: Usd) -> Result<Price, DecimalError> {
    let nanos = parse_scaled(text, 9)?;
    if nanos <= 0 {
        return Err(DecimalError::NotPositive);
    }
    if nanos % i128::from(tick.0) != 0 {
        return Err(DecimalError::OffStep);
    }
    u64::try_from(nanos / i128::from(tick.0)).map(Price).map_err(|_| DecimalError::TooLarge)
}

/// Reads a quantity in whole Units.
pub fn parse_qty(text: &str) -> Result<Qty, DecimalError> {
    let units = parse_scaled(text, 0)?;
    if units <= 0 {
        return Err(DecimalError::NotPositive);
    }
    u64::try_from(units).map(Qty).map_err(|_| DecimalError::TooLarge)
}

/// Reads a percentage as hundredths of a percent: `"1.5"` is 150.
pub fn parse_percent(text: &str) -> Result<u16, DecimalError> {
    let bps = parse_scaled(text, 2)?;
    if bps < 0 {
        return Err(DecimalError::NotPositive);
    }
    u16::try_from(bps).map_err(|_| DecimalError::TooLarge)
}

/// A price in dollars per Unit: `0.81`.
#[must_use]
pub fn price_text(price: Price, tick: Usd) -> String {
    nanos_text(i128::from(price.0) * i128::from(tick.0))
}

/// Nano-dollars as dollars without trailing zeros.
#[must_use]
pub fn nanos_text(nanos: i128) -> String {
    scaled_text(nanos, NANOS_PER_USD as u128, 9)
}

/// Tokens as Units without trailing zeros: 1,500,000 is `1.5`.
#[must_use]
pub fn tokens_text(tokens: u64) -> String {
    scaled_text(tokens.into(), 1_000_000, 6)
}

fn scaled_text(value: i128, one: u128, places: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let (whole, part) = (value.unsigned_abs() / one, value.unsigned_abs() % one);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{part:0places$}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// Tokens as a JSON number of Units: whole where it is whole. Only for showing; nothing computes with it.
#[must_use]
pub fn tokens_number(tokens: u64) -> serde_json::Value {
    if tokens.is_multiple_of(1_000_000) {
        return (tokens / 1_000_000).into();
    }
    tokens_text(tokens)
        .parse::<f64>()
        .ok()
        .and_then(serde_json::Number::from_f64)
        .map_or(serde_json::Value::Null, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecimalError::{Malformed, NotPositive, OffStep, TooLarge};

    #[test]
    fn prices_are_read_exactly_or_refused_with_the_reason() {
        let cent = Usd(10_000_000);
        let table = [
            ("0.81", Ok(Price(81))),
            ("45.50000000", Ok(Price(4_550))),
            ("8.1e-1", Ok(Price(81))),
            ("1E2", Ok(Price(10_000))),
            ("+1", Ok(Price(100))),
            (" 7 ", Ok(Price(700))),
            (".5", Ok(Price(50))),
            ("0.815", Err(OffStep)),
            ("0.8100000000000001", Err(OffStep)),
            ("0", Err(NotPositive)),
            ("-0.81", Err(NotPositive)),
            ("1e30", Err(TooLarge)),
            ("9999999999999999999999999999999999999999", Err(TooLarge)),
            ("1e99999", Err(Malformed)),
            ("1.", Err(Malformed)),
            ("", Err(Malformed)),
            (".", Err(Malformed)),
            ("0x10", Err(Malformed)),
            ("1,5", Err(Malformed)),
            ("NaN", Err(Malformed)),
            ("1 2", Err(Malformed)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_price(text, cent), expected, "{text}");
        }
    }

    #[test]
    fn quantities_are_whole_units() {
        let table = [
            ("10", Ok(Qty(10))),
            ("10.000", Ok(Qty(10))),
            ("1.5", Err(OffStep)),
            ("0", Err(NotPositive)),
            ("-3", Err(NotPositive)),
            ("18446744073709551616", Err(TooLarge)),
            ("ten", Err(Malformed)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_qty(text), expected, "{text}");
        }
    }

    #[test]
    fn slippage_is_a_percentage() {
        assert_eq!(parse_percent("1.5"), Ok(150));
        assert_eq!(parse_percent("0"), Ok(0));
        assert_eq!(parse_percent("0.001"), Err(OffStep));
        assert_eq!(parse_percent("-1"), Err(NotPositive));
        assert_eq!(parse_percent("700"), Err(TooLarge));
    }

    #[test]
    fn numbers_print_in_natural_form() {
        assert_eq!(price_text(Price(81), Usd(10_000_000)), "0.81");
        assert_eq!(nanos_text(-1_500_000_000), "-1.5");
        assert_eq!(tokens_number(7_000_000).to_string(), "7");
        assert_eq!(tokens_number(6_999_970).to_string(), "6.99997");
    }
}

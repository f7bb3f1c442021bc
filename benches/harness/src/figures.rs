//! Figures as people read them: as many digits as say something, and the unit that fits.

/// Three digits that say something, and no more.
pub(crate) fn number(figure: f64) -> String {
    match figure {
        figure if figure >= 1_000.0 => {
            // Thousands apart, as one reads them aloud.
            let digits = format!("{figure:.0}");
            let mut apart = String::new();
            for (nth, digit) in digits.chars().enumerate() {
                if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
                    apart.push('\'');
                }
                apart.push(digit);
            }
            apart
        }
        figure if figure >= 100.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Three digits and the prefix that fits.
pub(crate) fn short(figure: f64) -> String {
    let (scaled, prefix) = match figure {
        figure if figure >= 1e9 => (figure / 1e9, " G"),
        figure if figure >= 1e6 => (figure / 1e6, " M"),
        figure if figure >= 1e3 => (figure / 1e3, " k"),
        figure => (figure, ""),
    };
    digits(scaled) + prefix
}

pub(crate) fn digits(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Like [`short`], of what was counted: without digits that say nothing.
pub(crate) fn count(figure: f64) -> String {
    let said = short(figure);
    let (digits, prefix) =
        said.split_once(' ').map_or((said.as_str(), ""), |(digits, prefix)| (digits, prefix));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits} {prefix}").trim_end().to_owned()
}

/// So many of what is named by its plural: "1 book", "10 books".
#[must_use]
pub fn how_many(count: usize, plural: &str) -> String {
    let name = if count == 1 { plural.strip_suffix('s').unwrap_or(plural) } else { plural };
    format!("{count} {name}")
}

/// A time in the unit that fits.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => digits(ns / 1e9) + " s",
        ns if ns >= 1e6 => digits(ns / 1e6) + " ms",
        ns if ns >= 1e3 => digits(ns / 1e3) + " µs",
        ns => format!("{ns:.0} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_long_as_they_say_something() {
        assert_eq!(
            (short(1_234_567.0), short(12.34), short(0.5)),
            ("1.23 M".into(), "12.3".into(), "0.50".into())
        );
        assert_eq!(
            (count(1_000.0), count(2_700.0), count(100.0)),
            ("1 k".into(), "2.7 k".into(), "100".into())
        );
        assert_eq!(
            (time(52.0), time(6_800.0), time(4.1e6)),
            ("52 ns".into(), "6.80 µs".into(), "4.10 ms".into())
        );
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(how_many(1, "resting orders"), "1 resting order");
        assert_eq!(how_many(0, "books") + ", " + &how_many(21, "books"), "0 books, 21 books");
    }
}

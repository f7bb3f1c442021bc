//! Query strings in every style that clients send (contract §5.2): plain parameters, `filters[n][field|op|value]`,
//! `flop[filters][n][...]`, `order_by[]`, `page`, `page_size`, `offset`. What is not understood is passed over.

use crate::answer::ApiError;
use crate::time;
use grid_engine::Nanos;

/// Most parameters that one request may carry.
const PARAMETERS_MAX: usize = 200;

/// A parsed query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    plain: Vec<(String, String)>,
    filters: Vec<Filter>,
}

/// One condition in the bracketed style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    index: String,
    field: String,
    op: String,
    value: String,
}

impl Query {
    /// Reads the part of a URI after the question mark.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            if count >= PARAMETERS_MAX {
                return Err(ApiError::malformed("too many query parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            match bracketed(&name) {
                Some((index, part)) => query.filter_part(index, part, value),
                None => query.plain.push((name.strip_suffix("[]").unwrap_or(&name).into(), value)),
            }
        }
        Ok(query)
    }

    fn filter_part(&mut self, index: &str, part: &str, value: String) {
        let at = self.filters.iter().position(|filter| filter.index == index).unwrap_or_else(|| {
            self.filters.push(Filter { index: index.into(), ..Filter::default() });
            self.filters.len() - 1
        });
        match part {
            "field" => self.filters[at].field = value,
            "op" => self.filters[at].op = value,
            "value" => self.filters[at].value = value,
            _ => {}
        }
    }

    /// A parameter by its plain name, or an equality filter on that field. Empty counts as absent.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let plain = self.plain.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        plain
            .or_else(|| {
                self.filters
                    .iter()
                    .find(|filter| filter.field == name && matches!(filter.op.as_str(), "" | "==" | "="))
                    .map(|filter| filter.value.as_str())
            })
            .filter(|value| !value.is_empty())
    }

    /// A moment given as a plain parameter.
    pub(crate) fn moment(&self, name: &str) -> Result<Option<Nanos>, ApiError> {
        self.get(name).map(|text| moment(name, text)).transpose()
    }

    /// Lower and upper bound, both inclusive, of a time: from plain parameters, else from comparison filters on a field.
    pub(crate) fn range(
        &self,
        from: &str,
        to: &str,
        fields: &[&str],
    ) -> Result<(Option<Nanos>, Option<Nanos>), ApiError> {
        let (mut lowest, mut highest) = (self.moment(from)?, self.moment(to)?);
        for filter in &self.filters {
            let on_field = fields.contains(&filter.field.as_str());
            let on_bound = [from, to].contains(&filter.field.as_str());
            if !(on_field || on_bound) || filter.value.is_empty() {
                continue;
            }
            let at = moment(&filter.field, &filter.value)?;
            match filter.op.as_str() {
                ">=" if lowest.is_none() => lowest = Some(at),
                ">" if lowest.is_none() => lowest = Some(Nanos(at.0.saturating_add(1))),
                "<=" if highest.is_none() => highest = Some(at),
                "<" if highest.is_none() => highest = Some(Nanos(at.0.saturating_sub(1))),
                _ => {}
            }
        }
        Ok((lowest, highest))
    }
}

fn moment(name: &str, text: &str) -> Result<Nanos, ApiError> {
    time::parse(text)
        .ok_or_else(|| ApiError::malformed(format!("{name} is neither ISO 8601 nor Unix seconds")))
}

/// `filters[0][field]` and `flop[filters][0][field]` to (`0`, `field`).
fn bracketed(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("flop[filters][").or_else(|| name.strip_prefix("filters["))?;
    let (index, part) = rest.strip_suffix(']')?.split_once("][")?;
    Some((index, part))
}

/// Percent-decoding, with `+` as a space.
fn decode(text: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(ApiError::malformed(
                        "a percent sign in the query is not followed by two hex digits",
                    ));
                };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| ApiError::malformed("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_style_reaches_the_same_parameter() {
        for text in [
            "market_id=m-1&limit=5",
            "limit=5&filters[0][field]=market_id&filters[0][value]=m-1",
            "filters%5B0%5D%5Bfield%5D=market_id&filters%5B0%5D%5Bop%5D=%3D%3D&filters%5B0%5D%5Bvalue%5D=m-1&limit=5",
            "flop[filters][3][field]=market_id&flop[filters][3][op]===&flop[filters][3][value]=m-1&limit=5",
        ] {
            let query = Query::parse(text).expect("a client sends it");
            assert_eq!(query.get("market_id"), Some("m-1"), "{text}");
            assert_eq!(query.get("limit"), Some("5"), "{text}");
        }
    }

    #[test]
    fn comparison_filters_bound_a_time() {
        let query = Query::parse("filters[0][field]=date&filters[0][op]=>=&filters[0][value]=100&filters[1][field]=date&filters[1][op]=<&filters[1][value]=200").expect("well-formed");
        let (from, to) = query.range("from", "to", &["date"]).expect("two moments");
        assert_eq!(from, Some(Nanos(100_000_000_000)));
        assert_eq!(to, Some(Nanos(199_999_999_999)));
    }

    #[test]
    fn broken_escapes_and_floods_are_refused() {
        for text in ["a=%", "a=%zz", "a=%ff", &"a=1&".repeat(201)] {
            assert_eq!(Query::parse(text).err().map(|error| error.status.as_u16()), Some(400), "{text:.20}");
        }
    }

    #[test]
    fn array_style_names_and_unknown_ones_do_no_harm() {
        let query = Query::parse(
            "order_by[]=price&order_directions[]=desc&page=2&x&=&filters[0]=odd&filters[1][z]=1",
        )
        .expect("tolerated");
        assert_eq!(query.get("order_by"), Some("price"));
        assert_eq!(query.get("x"), None);
    }
}

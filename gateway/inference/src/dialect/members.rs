//! A JSON object as it stands: its members in their order, each value as the text it was sent as.
//!
//! A translation looks at every member exactly once, so that none can be forgotten, and carries what it doesn't have
//! to look into (schemas, texts, unknown members) over without reading it: numbers keep their digits, keys their order.

use std::borrow::Cow;
use std::fmt;

use hyper::StatusCode;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;

use crate::reply::Refusal;

/// The members of an object. None is there twice.
#[derive(Debug)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Collect { twice: false })
    }
}

/// Reads an object; `twice` says whether a member may be there more than once.
struct Collect {
    twice: bool,
}

impl<'de> Visitor<'de> for Collect {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            match members.iter_mut().find(|(known, _)| *known == name) {
                None => members.push((name, value)),
                Some((_, earlier)) if self.twice => *earlier = value,
                Some(_) => return Err(A::Error::custom("duplicate field")),
            }
        }
        Ok(Members(members))
    }
}

impl<'a> Members<'a> {
    /// Reads an object; `place` is what a refusal calls it.
    pub(crate) fn read(raw: &'a RawValue, param: &'static str, place: &str) -> Result<Self, Refusal> {
        serde_json::from_str(raw.get())
            .map_err(|_| bad(param, format!("{place} must be an object without repeated fields")))
    }

    /// Reads a whole body.
    pub(crate) fn body(body: &'a [u8]) -> Result<Self, Refusal> {
        let malformed = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message);
        let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8".into()))?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed("the body must be a JSON object".into()));
        }
        serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "has a field twice" } else { "is not JSON" };
            malformed(format!("the body {what} (line {} column {})", error.line(), error.column()))
        })
    }

    /// Reads whatever object it is; of what is there twice the last counts, as for most readers of JSON.
    pub(crate) fn any(json: &'a [u8]) -> Option<Self> {
        let mut from = serde_json::Deserializer::from_slice(json);
        let members = from.deserialize_map(Collect { twice: true }).ok()?;
        from.end().is_ok().then_some(members)
    }

    /// Takes a member out; a null counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.remove(at);
        (value.get() != "null").then_some(value)
    }

    /// Takes a string out.
    pub(crate) fn take_text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        text(self.take(name)?)
    }

    /// What was not taken.
    pub(crate) fn rest(self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        self.0.into_iter()
    }
}

/// 400 for what can't be read or can't be done here.
pub(crate) fn bad(param: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { param: Some(param), ..Refusal::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
}

/// A JSON string's text; nothing where it is none.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(raw.get()).ok().map(|name| name.0)
}

/// An array's items.
pub(crate) fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether a value is a JSON string.
pub(crate) fn is_text(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

/// Writes an object, or the items of an array, member by member.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: String,
    names: Vec<String>,
}

impl Writer {
    pub(crate) fn object() -> Self {
        Self { out: "{".into(), names: Vec::new() }
    }

    /// A member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        quote(&mut self.out, name);
        self.out.push(':');
        self.out.push_str(json);
        self.names.push(name.to_owned());
        self
    }

    /// A member that is a string.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.raw(name, &quoted(text))
    }

    /// A member that was sent, if it was.
    pub(crate) fn carry(&mut self, name: &str, raw: Option<&RawValue>) -> &mut Self {
        if let Some(raw) = raw {
            self.raw(name, raw.get());
        }
        self
    }

    /// What nobody knows is passed on. A member that a translation has already written can't come a second time.
    pub(crate) fn pass_on<'a>(
        &mut self,
        rest: impl Iterator<Item = (Cow<'a, str>, &'a RawValue)>,
        param: &'static str,
    ) -> Result<&mut Self, Refusal> {
        for (name, value) in rest {
            if self.names.iter().any(|known| **known == *name) {
                return Err(bad(param, format!("`{name}` says what another field says already")));
            }
            self.raw(&name, value.get());
        }
        Ok(self)
    }

    pub(crate) fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text);
    out
}

fn quote(out: &mut String, text: &str) {
    // Every string can be written as JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// An array of values that are JSON already.
pub(crate) fn array<T: AsRef<str>>(items: &[T]) -> String {
    let mut out = String::from("[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_digits() {
        let body = br#" {"b":1.50,"a":{"z":1,"y":2},"c\n":null,"s":"\u00e9"} "#;
        let mut members = Members::body(body).unwrap();
        assert_eq!(members.take_text("s").unwrap(), "é");
        assert!(members.take("c\n").is_none());
        let mut writer = Writer::object();
        writer.text("first", "\"q\"").pass_on(members.rest(), "body").unwrap();
        assert_eq!(writer.end(), r#"{"first":"\"q\"","b":1.50,"a":{"z":1,"y":2}}"#);
    }

    #[test]
    fn a_field_that_comes_twice_is_refused() {
        assert!(Members::body(br#"{"a":1,"a":2}"#).is_err());
        let members = Members::body(br#"{"a":1}"#).unwrap();
        let mut writer = Writer::object();
        assert!(writer.raw("a", "2").pass_on(members.rest(), "body").is_err());
        for broken in ["", "[]", "{", "{\"a\":}", "\u{feff}{}"] {
            assert_eq!(Members::body(broken.as_bytes()).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
    }
}

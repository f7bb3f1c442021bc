//! Who delivered is the venue's business (contract §4.4, "no supplier name leaked"): houses that resell others' models say in a
//! member of their own, `provider`, whose it is. It is taken out; everything else stays as it was sent.

use memchr::memmem;

use super::members::{Members, Writer};

/// The object without the member that names a house; `None` where it has none, or is no object.
pub(crate) fn unnamed(json: &[u8]) -> Option<String> {
    memmem::find(json, b"\"provider\"")?;
    let mut members = Members::body(json).ok()?;
    members.take("provider")?;
    let mut out = Writer::object();
    for (name, value) in members.rest() {
        out.raw(&name, value.get());
    }
    Some(out.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_member_that_names_a_house_goes() {
        for (json, expected) in [
            (r#"{"id":"1","provider":"Acme","x":1.50}"#, Some(r#"{"id":"1","x":1.50}"#)),
            (r#"{"provider":{"name":"Acme"},"a":[1, 2]}"#, Some(r#"{"a":[1, 2]}"#)),
            (r#"{"id":"1","x":1.50}"#, None),
            (r#"{"text":"\"provider\": none"}"#, None),
            (r#"{"message":{"provider":"a word of the answer"}}"#, None),
            ("not JSON, \"provider\"", None),
        ] {
            assert_eq!(unnamed(json.as_bytes()).as_deref(), expected, "{json}");
        }
    }
}

//! Who delivers is never told (contract §4.4): what a name or a message of a supplier's may say, once out of its hands.
//!
//! Answers go by a list of members (see `dialect::shown`). For a text there is no such list: one that names the house, or
//! leads to it, is not told at all, for a hole in it would often do.

use hyper::Uri;

use crate::roster::Candidate;

/// What a client is told instead of a text that names the house.
pub(crate) const REFUSED: &str = "the request was refused upstream";

/// Shorter words of a name are words of any message.
const NAME_BYTES_MIN: usize = 4;

/// A model's name without the path under which a house keeps it: `accounts/acme/models/qwen-80b` is `qwen-80b`.
pub(crate) fn model_name(model: &str) -> &str {
    model.rsplit('/').find(|part| !part.is_empty()).unwrap_or(model)
}

/// Whether a message of this supplier's, whose name is `house`, says who it is.
pub(crate) fn names(message: &str, house: &str, supplier: &Candidate) -> bool {
    let message = message.to_ascii_lowercase();
    let has = |word: &str| word.len() >= NAME_BYTES_MIN && message.contains(&word.to_ascii_lowercase());
    let word = house.split_whitespace().next().unwrap_or_default();
    let pathed = model_name(&supplier.model) != supplier.model;
    message.contains("://")
        || message.contains("www.")
        || has(house)
        || has(word)
        || pathed && has(&supplier.model)
        || supplier.base_url.parse::<Uri>().is_ok_and(|uri| uri.host().and_then(domain).is_some_and(has))
}

/// The word of a host that its owner chose: `acme` of `api.acme.ai` and of `api.acme.co.uk`.
fn domain(host: &str) -> Option<&str> {
    let mut labels = host.rsplit('.').skip(1);
    let word = labels
        .next()
        .filter(|word| word.len() > 3)
        .or_else(|| labels.next().filter(|word| *word != "api"))?;
    (!word.bytes().all(|byte| byte.is_ascii_digit())).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Floors;
    use grid_engine::{AccountId, InstrumentId};

    #[test]
    fn a_model_is_told_without_the_path_to_it() {
        for (model, told) in [
            ("qwen-next-80b", "qwen-next-80b"),
            ("accounts/acme/models/qwen-next-80b", "qwen-next-80b"),
            ("Qwen/Qwen3-Next", "Qwen3-Next"),
            ("odd/", "odd"),
            ("", ""),
        ] {
            assert_eq!(model_name(model), told);
        }
    }

    #[test]
    fn a_message_that_leads_to_the_house_is_known() {
        let supplier = |base_url: &str| Candidate {
            supplier: AccountId(2),
            instrument: InstrumentId(0),
            offer: 0,
            model: "accounts/own/models/m".into(),
            base_url: base_url.into(),
            sealed_credential: Vec::new(),
            floors: Floors::default(),
            ask: None,
        };
        for (message, named) in [
            ("max_tokens is too large for this model", false),
            ("model m does not support logprobs", false),
            ("model accounts/own/models/m does not support logprobs", true),
            ("Acme Models: too long", true),
            ("write to help at ACME", true),
            ("see https://docs.example.com/limits", true),
            ("see www.example.com", true),
            ("request rejected by zenith gateway", true),
        ] {
            let house = supplier("https://api.zenith.ai/v1");
            assert_eq!(names(message, "Acme Models", &house), named, "{message}");
        }
        let silent = "127 of zenith-like words, com and api";
        for url in ["http://127.0.0.1:80/v1", "https://api.com/v1", "no url", "http://localhost/v1"] {
            assert!(!names(silent, "", &supplier(url)), "{url}");
        }
        assert!(names(silent, "", &supplier("https://inference.zenith.co.uk")));
    }
}

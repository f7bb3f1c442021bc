//! Probes of suppliers: what the configuration says of them, and `grid operator probe`, which asks a running inference tier
//! to try a supplier now and prints what came of it as a table.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use grid_inference::{Pauses, Probing};
use grid_trading::ids::{self, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Outcome;

/// Longer than the tier gives a probe.
const PATIENCE: Duration = Duration::from_secs(900);

/// `[probes]`: when and how suppliers are tried.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probes {
    suspended: bool,
    required: bool,
    first_pause_seconds: u64,
    longest_pause_seconds: u64,
    samples: u32,
    misses: u32,
    context_percent: u32,
    context_tokens_max: u64,
}

impl Probes {
    /// The tier's form.
    pub(crate) fn terms(&self) -> Probing {
        let pauses = Pauses {
            first: Duration::from_secs(self.first_pause_seconds),
            longest: Duration::from_secs(self.longest_pause_seconds.max(self.first_pause_seconds)),
            ..Pauses::default()
        };
        Probing {
            suspended: self.suspended.then_some(pauses),
            required: self.required,
            samples: self.samples,
            misses: self.misses,
            context_percent: self.context_percent,
            context_tokens_max: self.context_tokens_max,
            ..Probing::default()
        }
    }
}

/// An account's number, from itself or from its public id.
pub(crate) fn supplier(text: &str) -> Result<u32, String> {
    let number = text.parse().ok();
    let decoded = || ids::decode(Kind::User, text).and_then(|number| u32::try_from(number).ok());
    number.or_else(decoded).ok_or_else(|| format!("{text} is neither a number nor an account's id"))
}

/// Ends well only where everything passed.
pub(crate) fn run(tier: SocketAddr, secret: &str, supplier: u32, instrument: &str) -> Outcome {
    let report = ask(tier, secret, &json!({"supplier": supplier, "instrument": instrument}))?;
    print!("{}", table(&report));
    match report["passed"].as_bool() {
        Some(true) => Ok(()),
        _ => Err("the supplier did not pass".into()),
    }
}

fn ask(tier: SocketAddr, secret: &str, body: &Value) -> Result<Value, Box<dyn std::error::Error>> {
    let mut socket = TcpStream::connect(tier)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let body = body.to_string();
    write!(
        socket,
        "POST /operator/probe HTTP/1.1\r\nhost: {tier}\r\nx-grid-operator: {secret}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the tier closed without an answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    let value: Value = serde_json::from_str(body).map_err(|_| format!("the tier answered {status}"))?;
    if status == "200" {
        return Ok(value);
    }
    let why = value["error"]["message"].as_str().unwrap_or_default();
    Err(format!("the tier answered {status}: {why}").into())
}

/// One line for each check of each model.
fn table(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    for model in report["models"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "supplier {}, {}, model {}: {}; {} requests, {} tokens, {} ms",
            report["supplier"],
            text(&report["instrument"]),
            text(&model["model"]),
            if model["passed"] == true { "passed" } else { "failed" },
            model["requests"],
            model["tokens"],
            model["took_ms"],
        );
        for check in model["checks"].as_array().into_iter().flatten() {
            let verdict = match &check["verdict"] {
                Value::Object(one) => {
                    let told = one.iter().map(|(word, why)| format!("{word}: {}", text(why)));
                    told.collect::<Vec<_>>().join(", ")
                }
                word => text(word),
            };
            let figures = check["figures"].as_object().into_iter().flatten();
            let figures: Vec<String> = figures.map(|(name, value)| format!("{name}={value}")).collect();
            let line = format!("  {:<15} {verdict:<40} {}", text(&check["check"]), figures.join(" "));
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_for_each_check() {
        let report = json!({"supplier": 7, "instrument": "text-prime", "passed": false, "models": [
            {"model": "m", "passed": false, "requests": 3, "tokens": 90, "took_ms": 12, "checks": [
                {"check": "stream", "verdict": "passed", "figures": {"events": 4}},
                {"check": "tools", "verdict": {"failed": "refused"}, "figures": {}}]}]});
        let told = table(&report);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "supplier 7, text-prime, model m: failed; 3 requests, 90 tokens, 12 ms");
        assert!(lines[1].starts_with("  stream          passed ") && lines[1].ends_with(" events=4"));
        assert_eq!(lines[2], "  tools           failed: refused");
    }
}

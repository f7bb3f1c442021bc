//! Holds the instructions per hot command to what was recorded: `cargo run -p grid-ratchet` counts them, compares, and fails where one has grown by more
//! than 3 %; with `-- --record` it writes what it counted beside this crate, for the commit that means to change it.
//!
//! Counts belong to a compiler: the first line of the record names it, and with another one a difference is told but does not fail. Wants valgrind, and
//! the runner of the version that `Cargo.lock` has of gungraun.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

/// How much a count may grow before it has to be recorded anew, in hundredths.
const GIVE: u64 = 3;
/// What to do about it.
const RECORD: &str = "cargo run -p grid-ratchet -- --record";

/// Instructions by benchmark.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let record = std::env::args().any(|word| word == "--record");
    match run(record) {
        Ok(held) if held => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(record: bool) -> Result<bool, Box<dyn Error>> {
    let (compiler, found) = (compiler()?, count()?);
    if record {
        std::fs::write(baseline(), written(&compiler, &found))?;
        println!("recorded {} counts in {}", found.len(), baseline().display());
        return Ok(true);
    }
    let (recorded_with, recorded) = read(&std::fs::read_to_string(baseline())?)?;
    let (told, held) = compare(&recorded, &found);
    print!("{told}");
    if held {
        return Ok(true);
    }
    if recorded_with != compiler {
        println!(
            "not held against anybody: recorded with {recorded_with}, counted with {compiler}; record anew with `{RECORD}`"
        );
        return Ok(true);
    }
    println!("if that is meant, record it in the same commit: `{RECORD}`");
    Ok(false)
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs the benchmarks; what each of them counted.
fn count() -> Result<Counts, Box<dyn Error>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--locked", "--package", "grid-ratchet", "--bench", "instructions"])
        .args(["--", "--output-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the benchmarks failed:\n{}", String::from_utf8_lossy(&output.stdout)).into());
    }
    let counts = parsed(&String::from_utf8(output.stdout)?)?;
    if counts.is_empty() { Err("the benchmarks told no counts".into()) } else { Ok(counts) }
}

/// One line of JSON for each benchmark.
fn parsed(lines: &str) -> Result<Counts, Box<dyn Error>> {
    let mut counts = Counts::new();
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let summary: Value = serde_json::from_str(line)?;
        let text = |name: &str| summary[name].as_str().unwrap_or_default().to_owned();
        let name = format!("{} {}", text("function_name"), text("id"));
        let instructions =
            new_count(&summary["profiles"], "Ir").ok_or_else(|| format!("{name} has no count"))?;
        counts.insert(name, instructions);
    }
    Ok(counts)
}

/// The figure of this name that this run counted; one of an earlier run may stand beside it.
fn new_count(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(figure) => figure["values"]["new"].as_u64(),
            None => fields.values().find_map(|value| new_count(value, name)),
        },
        Value::Array(values) => values.iter().find_map(|value| new_count(value, name)),
        _ => None,
    }
}

fn written(compiler: &str, counts: &Counts) -> String {
    let lines: String = counts.iter().map(|(name, count)| format!("{count:>10} {name}\n")).collect();
    format!("{compiler}\n{lines}")
}

fn read(text: &str) -> Result<(String, Counts), Box<dyn Error>> {
    let (compiler, lines) = text.split_once('\n').ok_or("the record is empty")?;
    let count = |line: &str| -> Result<(String, u64), Box<dyn Error>> {
        let (count, name) = line.trim().split_once(' ').ok_or_else(|| format!("not a count: {line}"))?;
        Ok((name.to_owned(), count.parse()?))
    };
    Ok((compiler.to_owned(), lines.lines().map(count).collect::<Result<_, _>>()?))
}

/// A table of both, and whether nothing grew, appeared or went.
fn compare(recorded: &Counts, found: &Counts) -> (String, bool) {
    let (mut told, mut held) = (String::new(), true);
    let names: std::collections::BTreeSet<_> = recorded.keys().chain(found.keys()).collect();
    for name in names {
        let verdict = match (recorded.get(name), found.get(name)) {
            (Some(&was), Some(&is)) if is * 100 > was * (100 + GIVE) => {
                held = false;
                format!("{was:>10} {is:>10} {:>+7.1} %  GREW", change(was, is))
            }
            (Some(&was), Some(&is)) => format!("{was:>10} {is:>10} {:>+7.1} %", change(was, is)),
            (was, is) => {
                held = false;
                let word = if was.is_none() { "NOT RECORDED" } else { "GONE" };
                format!("{:>10} {:>10} {word:>9}", was.copied().unwrap_or(0), is.copied().unwrap_or(0))
            }
        };
        told.push_str(&format!("{verdict}  {name}\n"));
    }
    (told, held)
}

fn change(was: u64, is: u64) -> f64 {
    (is as f64 / was as f64 - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn a_count_may_grow_by_three_in_a_hundred_and_shrink_as_it_likes() {
        let recorded = counts(&[("a", 1_000), ("b", 1_000)]);
        assert!(compare(&recorded, &counts(&[("a", 1_030), ("b", 1)])).1);
        assert!(!compare(&recorded, &counts(&[("a", 1_031), ("b", 1_000)])).1);
    }

    #[test]
    fn what_is_not_recorded_or_gone_is_told() {
        let recorded = counts(&[("a", 1_000)]);
        assert!(!compare(&recorded, &counts(&[("a", 1_000), ("b", 1)])).1);
        assert!(!compare(&recorded, &counts(&[("b", 1_000)])).1);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let written_counts = counts(&[("engine place_resting", 123_456), ("seal_block of_64_commands", 7)]);
        let (compiler, found) = read(&written("rustc 1.0", &written_counts)).expect("it is whole");
        assert_eq!((compiler.as_str(), found), ("rustc 1.0", written_counts));
    }

    #[test]
    fn of_two_runs_the_new_one_counts() {
        let line = r#"{"function_name":"engine","id":"cancel","profiles":[{"data":{"parts":[{"metrics":{"Ir":{"values":{"new":12,"old":34}}}}]}}]}"#;
        let found = parsed(line).expect("a count");
        assert_eq!(found, counts(&[("engine cancel", 12)]));
    }
}

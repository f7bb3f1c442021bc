//! `grid`: the one command.

mod script;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["script", file] => script::run(file),
        _ => {
            eprintln!("usage: grid script FILE|-");
            ExitCode::from(2)
        }
    }
}

//! `grid script FILE|-`: readable order scripts against a fresh engine.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::process::ExitCode;

/// Runs a script, from standard input for `-`, and prints one result line per case. A script that is not understood
/// or can't be read ends with exit code 2 and says on standard error which line it was.
pub(crate) fn run(file: &str) -> ExitCode {
    let out = BufWriter::new(io::stdout().lock());
    let result = if file == "-" {
        grid_script::run(io::stdin().lock(), out)
    } else {
        match File::open(file) {
            Ok(opened) => grid_script::run(BufReader::with_capacity(1 << 20, opened), out),
            Err(error) => {
                eprintln!("grid script: cannot open {file}: {error}");
                return ExitCode::from(2);
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough, as with `| head`.
        Err(grid_script::ScriptError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("grid script: {error}");
            ExitCode::from(2)
        }
    }
}

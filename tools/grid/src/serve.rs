//! `grid serve`: a venue and nobody else.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Outcome;
use crate::config::Config;
use crate::progress::step;
use crate::ready::{self, ReadyInstrument};
use crate::venue::{Urls, Venue, wait_for_signal};

#[derive(Serialize)]
struct Serving {
    #[serde(flatten)]
    urls: Urls,
    instruments: Vec<ReadyInstrument>,
}

pub(crate) fn run(file: Option<&Path>, data_dir: Option<PathBuf>, ready_file: Option<&Path>) -> Outcome {
    let mut config = Config::load(file)?;
    if let Some(dir) = data_dir {
        config.data_dir = dir;
    }
    if let Some(path) = ready_file {
        ready::retire(path, &config.data_dir)?;
    }
    let venue = Venue::start(&config)?;
    let serving = Serving { urls: venue.urls.clone(), instruments: venue.replica.read(ready::instruments) };
    if let Some(path) = ready_file {
        ready::write(path, &serving)?;
    }
    println!("{}", serde_json::to_string_pretty(&serving)?);
    wait_for_signal();
    step("stopping");
    venue.shutdown();
    Ok(())
}

//! `grid serve`: a venue and nobody else.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Outcome;
use crate::config::Config;
use crate::progress::step;
use crate::ready::{self, ReadyInstrument};
use crate::venue::{End, Signals, Started, Urls, Venue};

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
    let signals = Signals::listen()?;
    loop {
        let end = match Venue::start(&config, &signals)? {
            Started::Serving(venue) => {
                let instruments = venue.replica().read(ready::instruments);
                let serving = Serving { urls: venue.urls.clone(), instruments };
                if let Some(path) = ready_file {
                    ready::write(path, &serving)?;
                }
                println!("{}", serde_json::to_string_pretty(&serving)?);
                let end = venue.wait_for_end(&signals);
                if end != End::Reload {
                    step("stopping");
                }
                venue.shutdown();
                end
            }
            Started::Ended(end) => end,
        };
        match end {
            End::Reload => step("the state came from another node: down, and up again in place"),
            End::Signal => return Ok(()),
            End::Removed => {
                step(
                    "this node is no longer a member of its cluster, and will not be again under this number",
                );
                return Ok(());
            }
            End::Stop(why) => return Err(why.into()),
        }
    }
}

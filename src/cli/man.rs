//! `taskpact man`

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_mangen::generate_to;

use super::{Cli, Failure};

pub(super) fn run(folder: &Path) -> Result<(), Failure> {
    let written = fs::create_dir_all(folder).and_then(|()| generate_to(Cli::command(), folder));
    written.map_err(|error| Failure::Write(folder.display().to_string(), error))
}

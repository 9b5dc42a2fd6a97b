//! `taskpact completions`

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, Failure, print};

pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    print(&String::from_utf8_lossy(&script))
}

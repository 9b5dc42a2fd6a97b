//! `taskpact backup` and `taskpact restore`

use std::path::{Path, PathBuf};

use clap::Args;
use taskpact::{
    config::Config,
    store::{Store, backup},
};

use super::{Failure, Progress, confirm, database_failed, print};

#[derive(Debug, Args)]
pub(super) struct Source {
    /// The copy
    file: PathBuf,
    /// Replace the database without asking
    #[arg(long)]
    yes: bool,
}

pub(super) fn back_up(config: &Config, file: &Path) -> Result<(), Failure> {
    let mut progress = Progress::new("pages");
    let outcome = backup::backup(&config.database, file, |done, of| progress.show(done, Some(of)));
    progress.end();
    outcome.map_err(Failure::Backup)?;
    print(&format!("{} is a copy of the database, and in order\n", file.display()))
}

pub(super) async fn restore(config: &Config, Source { file, yes }: &Source) -> Result<(), Failure> {
    if !yes {
        confirm(&format!(
            "This puts {} in the place of the database, which is kept under another name.\n",
            file.display()
        ))?;
    }
    let mut progress = Progress::new("pages");
    let restored = backup::prepare_restoration(&config.database, file, |done, of| progress.show(done, Some(of)));
    progress.end();
    let restored = restored.map_err(Failure::Backup)?;
    // The copy may be of an earlier version of the program.
    let mut settings = config.clone();
    settings.database.url = config.database.url.beside(backup::RESTORED);
    let store = Store::new(&settings.database).map_err(Failure::UnusableDatabase)?;
    store.migrate_up().await.map_err(|error| database_failed(&settings, error))?;
    store.close().await;
    let before = backup::put_in_place(&config.database, &restored).map_err(Failure::Backup)?;
    let kept = before.map(|before| format!("; what it was is in {}", before.display())).unwrap_or_default();
    print(&format!("the database is that of {}{kept}\n", file.display()))
}

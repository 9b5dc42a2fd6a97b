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
    let placed = place(config, &restored).await;
    if placed.is_err() {
        backup::give_up(&restored).map_err(Failure::Backup)?;
    }
    let before = placed?;
    let kept = before.map(|before| format!("; what it was is in {}", before.display())).unwrap_or_default();
    print(&format!("the database is that of {}{kept}\n", file.display()))
}

/// Brings the schema of what is restored up to date, as the copy may be of an earlier version, and puts it in place. Where the
/// database before is kept, if there was one.
async fn place(config: &Config, restored: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut settings = config.clone();
    settings.database.url = config.database.url.beside(backup::RESTORED);
    let store = Store::new(&settings.database).map_err(Failure::UnusableDatabase)?;
    let migrated = store.migrate_up().await;
    store.close().await;
    migrated.map_err(|error| database_failed(&settings, error))?;
    backup::put_in_place(&config.database, restored).map_err(Failure::Backup)
}

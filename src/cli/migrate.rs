//! `taskpact migrate`

use clap::Subcommand;
use taskpact::{
    config::Config,
    store::{Loss, Step, Store},
};

use super::{Failure, confirm, database_failed, print};

#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Apply every pending migration
    Up,
    /// Take back the last migrations, with the data that they hold
    Down {
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        steps: u32,
        /// Delete the data without asking
        #[arg(long)]
        yes: bool,
    },
    /// List the migrations and whether they are applied
    Status,
}

pub(super) async fn run(config: &Config, change: Change) -> Result<(), Failure> {
    let store = match change {
        Change::Up => Some(Store::new(&config.database)),
        // There is nothing to look at in a file that is made for it.
        Change::Down { .. } | Change::Status => Store::existing(&config.database).transpose(),
    };
    let Some(store) = store.transpose().map_err(Failure::UnusableDatabase)? else {
        return match change {
            Change::Status => print(&status(&Store::migrations())),
            _ => print("nothing to take back\n"),
        };
    };
    let failed = |error| database_failed(config, error);
    store.try_connect().await.map_err(failed)?;
    let text = match change {
        Change::Up => report("applied", "nothing to apply", &store.migrate_up().await.map_err(failed)?),
        Change::Down { steps, yes } => {
            let losses = store.migration_losses(steps).await.map_err(failed)?;
            if losses.iter().any(|loss| !loss.tables.is_empty()) && !yes {
                confirm(&losses_in_words(&losses))?;
            }
            report("took back", "nothing to take back", &store.migrate_down(steps).await.map_err(failed)?)
        }
        Change::Status => status(&store.migration_status().await.map_err(failed)?),
    };
    store.close().await;
    print(&text)
}

/// What would be deleted.
fn losses_in_words(losses: &[Loss]) -> String {
    let tables = losses.iter().flat_map(|loss| loss.tables.iter().map(move |(table, rows)| (&loss.step, table, rows)));
    let list: String = tables.map(|(step, table, rows)| format!("  {table} ({rows} rows), made by {step}\n")).collect();
    format!("This deletes, with everything in it:\n{list}")
}

fn status(steps: &[Step]) -> String {
    let state = |applied| if applied { "applied" } else { "pending" };
    steps.iter().map(|step| format!("{}  {}\n", state(step.applied), step.name)).collect()
}

fn report(done: &str, nothing: &str, steps: &[String]) -> String {
    if steps.is_empty() {
        return format!("{nothing}\n");
    }
    steps.iter().map(|step| format!("{done} {step}\n")).collect()
}

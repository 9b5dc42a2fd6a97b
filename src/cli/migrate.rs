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
            // Whoever serves would fail at every request from then on.
            if store.shares_its_file() {
                return Err(Failure::Other("a server has the database open: stop it first".to_owned()));
            }
            let losses = store.migration_losses(steps).await.map_err(failed)?;
            if !losses.is_empty() && !yes {
                confirm(&losses_in_words(&losses))?;
            }
            report("took back", "nothing to take back", &store.migrate_down(steps).await.map_err(failed)?)
        }
        Change::Status => status(&store.migration_status().await.map_err(failed)?),
    };
    store.close().await;
    print(&text)
}

/// What would be taken back, and deleted with it.
fn losses_in_words(losses: &[Loss]) -> String {
    let steps: Vec<_> = losses.iter().map(|loss| loss.step.as_str()).collect();
    let tables = losses.iter().flat_map(|loss| loss.tables.iter().map(move |(table, rows)| (&loss.step, table, rows)));
    let list: String = tables.map(|(step, table, rows)| format!("  {table} ({rows} rows), made by {step}\n")).collect();
    let deleted = if list.is_empty() { list } else { format!("This deletes, with everything in it:\n{list}") };
    format!("This takes back {}. Servers of this version fail until it is applied again.\n{deleted}", steps.join(", "))
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

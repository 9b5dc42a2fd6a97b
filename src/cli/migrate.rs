//! `taskpact migrate`

use clap::Subcommand;
use taskpact::{config::Config, store::Store};

use super::{Failure, database_failed, print};

#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Apply every pending migration
    Up,
    /// Take back the last migrations, with the data that they hold
    Down {
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        steps: u32,
    },
    /// List the migrations and whether they are applied
    Status,
}

pub(super) async fn run(config: &Config, change: Change) -> Result<(), Failure> {
    let store = Store::new(&config.database).map_err(Failure::UnusableDatabase)?;
    let failed = |error| database_failed(config, error);
    store.try_connect().await.map_err(failed)?;
    let text = match change {
        Change::Up => report("applied", "nothing to apply", &store.migrate_up().await.map_err(failed)?),
        Change::Down { steps } => {
            report("took back", "nothing to take back", &store.migrate_down(steps).await.map_err(failed)?)
        }
        Change::Status => {
            let steps = store.migration_status().await.map_err(failed)?;
            let state = |applied| if applied { "applied" } else { "pending" };
            steps.iter().map(|step| format!("{}  {}\n", state(step.applied), step.name)).collect()
        }
    };
    store.close().await;
    print(&text)
}

fn report(done: &str, nothing: &str, steps: &[String]) -> String {
    if steps.is_empty() {
        return format!("{nothing}\n");
    }
    steps.iter().map(|step| format!("{done} {step}\n")).collect()
}

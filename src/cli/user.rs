//! `taskpact user`

use std::io::{self, Write};

use clap::{Args, Subcommand};
use taskpact::{
    config::Config,
    store::{BATCH, Belongings, Store},
};

use super::{Failure, Progress, confirm, database_failed, print, user_id};

#[derive(Debug, Subcommand)]
pub(super) enum Request {
    /// Print every task of a user, one JSON object a line, as the API gives it
    Export(Whose),
    /// Delete a user with everything that is theirs. Their tokens stay valid until they expire
    Erase {
        #[command(flatten)]
        whose: Whose,
        /// Delete it without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    /// The user's id: the subject of their tokens
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: String,
}

pub(super) async fn run(config: &Config, request: Request) -> Result<(), Failure> {
    let (Request::Export(Whose { user }) | Request::Erase { whose: Whose { user }, .. }) = &request;
    let failed = |error| database_failed(config, error);
    let unknown = || Failure::Other(format!("there is no user `{user}` in the database"));
    let no_database =
        || Failure::Other(format!("there is no database yet at {:?} (`database.url`)", config.database.url));
    let store = Store::existing(&config.database).map_err(Failure::UnusableDatabase)?.ok_or_else(no_database)?;
    store.try_connect().await.map_err(failed)?;
    let belongings = store.belongings(user).await.map_err(failed)?.ok_or_else(unknown)?;
    match &request {
        Request::Export(_) => export(&store, user, config).await?,
        Request::Erase { yes, .. } => {
            let Belongings { tasks, keys, deletions } = belongings;
            if !yes {
                confirm(&format!(
                    "This deletes the user `{user}` for good, with {tasks} tasks, {keys} answers that are kept for repeats and \
                     the ids of {deletions} deleted tasks.\n"
                ))?;
            }
            let (mut progress, mut done) = (Progress::new("tasks"), 0);
            while store.erase(user).await.map_err(failed)? {
                done += BATCH;
                progress.show(done, Some(tasks.max(keys).max(deletions)));
            }
            progress.end();
            print(&format!("erased `{user}`: {tasks} tasks\n"))?;
        }
    }
    store.close().await;
    Ok(())
}

async fn export(store: &Store, user: &str, config: &Config) -> Result<(), Failure> {
    let (mut progress, mut done) = (Progress::new("tasks"), 0);
    let mut after = None;
    loop {
        let tasks = store.export(user, after).await.map_err(|error| database_failed(config, error))?;
        let Some(last) = tasks.last() else { break };
        after = Some(last.id);
        let mut lines = Vec::new();
        for task in &tasks {
            serde_json::to_writer(&mut lines, task).expect("a task is plain data");
            lines.push(b'\n');
        }
        // Whoever reads it may have had enough; then there is nothing left to be done.
        if let Err(error) = io::stdout().write_all(&lines) {
            progress.end();
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(Failure::Output(error)) };
        }
        done += tasks.len() as u64;
        progress.show(done, None);
    }
    progress.end();
    Ok(())
}

//! `taskpact user`

use std::io::{self, IsTerminal, Write};

use clap::{Args, Subcommand};
use taskpact::{
    config::Config,
    store::{Belongings, Store},
};

use super::{Failure, confirm, database_failed, print, user_id};

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
    let store = Store::existing(&config.database).map_err(Failure::UnusableDatabase)?.ok_or_else(unknown)?;
    store.try_connect().await.map_err(failed)?;
    let belongings = store.belongings(user).await.map_err(failed)?.ok_or_else(unknown)?;
    match &request {
        Request::Export(_) => export(&store, user, config).await?,
        Request::Erase { yes, .. } => {
            let Belongings { tasks, keys } = belongings;
            if !yes {
                confirm(&format!(
                    "This deletes the user `{user}` for good, with {tasks} tasks and {keys} answers that are kept for repeats.\n"
                ))?;
            }
            let mut progress = Progress::new(tasks.max(keys));
            while store.erase(user).await.map_err(failed)? {
                progress.step(1_000);
            }
            progress.end();
            print(&format!("erased `{user}`: {tasks} tasks\n"))?;
        }
    }
    store.close().await;
    Ok(())
}

async fn export(store: &Store, user: &str, config: &Config) -> Result<(), Failure> {
    let mut progress = Progress::new(0);
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
        progress.step(tasks.len() as u64);
    }
    progress.end();
    Ok(())
}

/// How far it has come, on a terminal; nothing in a pipe.
struct Progress {
    done: u64,
    of: u64,
    is_shown: bool,
}

impl Progress {
    fn new(of: u64) -> Self {
        Self { done: 0, of, is_shown: io::stderr().is_terminal() }
    }

    fn step(&mut self, rows: u64) {
        self.done += rows;
        if self.is_shown {
            let of = if self.of > 0 { format!(" of {}", self.of) } else { String::new() };
            // A terminal that has gone is no reason to stop.
            let _ = write!(io::stderr(), "\r{}{of} rows", self.done);
        }
    }

    fn end(&self) {
        if self.is_shown && self.done > 0 {
            let _ = writeln!(io::stderr());
        }
    }
}

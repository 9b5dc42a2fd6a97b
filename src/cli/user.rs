//! `taskpact user`

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand};
use taskpact::{
    clock::Clock,
    config::Config,
    store::{BATCH, Belongings, Store},
};

use super::{Failure, Progress, confirm, database_failed, print, user_id};

#[derive(Debug, Subcommand)]
pub(super) enum Request {
    /// Print every task of a user, one JSON object a line, as the API gives it
    Export(Whose),
    /// Delete a user with everything that is theirs. Their tokens stay valid until they expire, unless they are blocked
    Erase {
        #[command(flatten)]
        whose: Whose,
        /// Block the user first, so that a token that was issued before does not bring them back
        #[arg(long)]
        block: bool,
        /// Delete it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Refuse the tokens that a user was issued until now. Who is issued a new one is served again
    Block {
        #[command(flatten)]
        whose: Whose,
        /// Refuse all tokens until then: a time such as `2026-12-24T18:00:00Z`, or how long from now, such as `2h` or `30days`
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Option<DateTime<Utc>>,
    },
    /// Take the block of a user back: their tokens are accepted again until they expire
    Unblock(Whose),
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    /// The user's id: the subject of their tokens
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: String,
}

pub(super) async fn run(config: &Config, request: Request) -> Result<(), Failure> {
    let no_database =
        || Failure::Other(format!("there is no database yet at {:?} (`database.url`)", config.database.url));
    let store = Store::existing(&config.database).map_err(Failure::UnusableDatabase)?.ok_or_else(no_database)?;
    store.try_connect().await.map_err(|error| database_failed(config, error))?;
    match &request {
        Request::Export(Whose { user }) => {
            belongings(&store, user, config).await?;
            export(&store, user, config).await?;
        }
        Request::Erase { whose: Whose { user }, block, yes } => erase(&store, user, config, *block, *yes).await?,
        Request::Block { whose: Whose { user }, until } => {
            let known = store.belongings(user).await.map_err(|error| database_failed(config, error))?;
            block(&store, user, config, *until).await?;
            if known.is_none() {
                eprintln!("The database did not know this user, who may have been erased. Is the id right?");
            }
        }
        Request::Unblock(Whose { user }) => {
            if !store.unblock(user).await.map_err(|error| database_failed(config, error))? {
                return Err(Failure::Other(format!("the user `{user}` is not blocked")));
            }
            print(&format!("unblocked `{user}`\n"))?;
        }
    }
    store.close().await;
    Ok(())
}

/// Reads a time to come, or how long it is until then.
fn until(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let now = DateTime::<Utc>::from(Clock.now());
    let at = match humantime::parse_duration(text) {
        Ok(duration) => TimeDelta::from_std(duration).ok().and_then(|duration| now.checked_add_signed(duration)),
        Err(_) => DateTime::parse_from_rfc3339(text).ok().map(Into::into),
    };
    let at = at.ok_or("it is neither a time such as `2026-12-24T18:00:00Z` nor a duration such as `2h` or `30days`")?;
    if at > now { Ok(at) } else { Err("it is not in the future") }
}

/// What the database has of a user whom it knows.
async fn belongings(store: &Store, user: &str, config: &Config) -> Result<Belongings, Failure> {
    let belongings = store.belongings(user).await.map_err(|error| database_failed(config, error))?;
    belongings.ok_or_else(|| no_such_user(user))
}

fn no_such_user(user: &str) -> Failure {
    Failure::Other(format!("there is no user `{user}` in the database"))
}

async fn block(store: &Store, user: &str, config: &Config, until: Option<DateTime<Utc>>) -> Result<(), Failure> {
    // Tokens say to the second when they were issued: those of the second in which the block ends are refused.
    let tokens_from = until.unwrap_or_else(|| Clock.now().into()).timestamp() + 1;
    let in_force = store.block(user, tokens_from).await.map_err(|error| database_failed(config, error))?;
    let at = DateTime::from_timestamp_secs(in_force).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    print(&format!("blocked `{user}`: tokens that were issued before {at} are refused\n"))?;
    if in_force > tokens_from {
        eprintln!("The block was there already, and lasts longer. `taskpact user unblock` takes it back");
    }
    Ok(())
}

async fn erase(store: &Store, user: &str, config: &Config, blocks: bool, yes: bool) -> Result<(), Failure> {
    let known = store.belongings(user).await.map_err(|error| database_failed(config, error))?;
    let Some(Belongings { tasks, keys, deletions }) = known else {
        // Whoever was erased before is kept from coming back.
        if blocks {
            block(store, user, config, None).await?;
        }
        return Err(no_such_user(user));
    };
    if !yes {
        confirm(&format!(
            "This deletes the user `{user}` for good, with {tasks} tasks, {keys} answers that are kept for repeats and the ids \
             of {deletions} deleted tasks.\n"
        ))?;
    }
    if blocks {
        block(store, user, config, None).await?;
    }
    let (mut progress, mut done) = (Progress::new("tasks"), 0);
    while store.erase(user).await.map_err(|error| database_failed(config, error))? {
        done += BATCH;
        progress.show(done, Some(tasks.max(keys).max(deletions)));
    }
    progress.end();
    print(&format!("erased `{user}`: {tasks} tasks\n"))?;
    if !blocks {
        eprintln!(
            "A token that is still valid brings the user back with the next task. `taskpact user block` refuses those that were \
             issued until now"
        );
    }
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

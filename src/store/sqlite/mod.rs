//! SQLite: threads that each own a connection. One writes, as SQLite knows no more; the others read beside it.
//!
//! The writer takes what waits, does each request within a savepoint of its own, and commits once: what one request breaks
//! does not fail the others, and one wait for the disk serves them all.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, params};
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use super::{
    file::DatabaseFile,
    queue::{Queue, Roles, Taken},
    request::{Kind, Request, cause, unavailable},
};
use crate::{
    auth::Owner,
    problem::{Cause, Fault},
};

mod reads;
mod writes;

use reads::read;
use writes::{Done, answer, within_savepoint};

/// The most requests that are written with one commit.
const MAX_COMMIT: usize = 256;
/// The size from which on the write-ahead log is written back as a whole, which readers would else never allow, and that it is
/// cut down to, in bytes.
const MAX_LOG_BYTES: u32 = 16 * 1024 * 1024;
/// How long before that is tried again, if another process reads the database.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// How long it waits for such a reader, in milliseconds; meanwhile nobody else here is served.
const LOG_PATIENCE_MS: u32 = 50;

/// What the threads serve: the first one writes.
pub(super) fn lanes(readers: usize) -> Vec<Roles> {
    let reads = Roles::of(|kind| !kind.writes());
    [vec![Roles::of(Kind::writes)], vec![reads; readers]].concat()
}

/// What all threads share.
pub(super) struct Sqlite {
    pub(super) file: Arc<DatabaseFile>,
    pub(super) queue: Arc<Queue>,
    /// How long a request waits for its turn, and a statement for another process's lock.
    pub(super) patience: Duration,
    /// Held by each reader while it reads. Whoever has it alone can begin the write-ahead log anew.
    log: RwLock<()>,
}

/// Why a request failed.
enum Failed {
    /// For a reason of its own.
    Refused(Fault),
    /// By the database.
    Database(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failed> for Fault {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(fault) => fault,
            Failed::Database(error) => fault(error),
        }
    }
}

impl Sqlite {
    pub(super) fn new(file: Arc<DatabaseFile>, queue: Arc<Queue>, patience: Duration) -> Self {
        Self { file, queue, patience, log: RwLock::new(()) }
    }

    /// Starts the threads, each with a task that ends with it. They end when the queue is closed.
    pub(super) fn start(self, tasks: &mut JoinSet<()>) {
        let this = Arc::new(self);
        for lane in 0..this.queue.lanes() {
            let (this, runtime) = (Arc::clone(&this), Handle::current());
            let name = if lane == 0 { "sqlite-writer".to_owned() } else { format!("sqlite-reader-{lane}") };
            let (ends, ended) = oneshot::channel::<()>();
            let serve = move || {
                // After a panic, which is in the log, it goes on; the requests that it had are answered with a 500.
                while catch_unwind(AssertUnwindSafe(|| this.serve(lane, &runtime))).is_err() {}
                drop(ends);
            };
            thread::Builder::new().name(name).spawn(serve).expect("the system gives a thread");
            // Nothing is ever sent.
            tasks.spawn(async move { drop(ended.await) });
        }
    }

    fn serve(&self, lane: usize, runtime: &Handle) {
        let (mut connection, mut log_failed) = (None, None);
        loop {
            let taken = if log_failed.is_some() {
                let Ok(taken) = runtime.block_on(async { timeout(LOG_PAUSE, self.queue.take(lane)).await }) else {
                    self.shorten_log(&mut connection, &mut log_failed);
                    continue;
                };
                taken
            } else {
                runtime.block_on(self.queue.take(lane))
            };
            let Some(mut taken) = taken else { return };
            let mut sets = vec![std::mem::take(&mut taken.requests)];
            let mut all = vec![taken];
            while lane == 0
                && sets.iter().map(Vec::len).sum::<usize>() < MAX_COMMIT
                && let Some(mut more) = self.queue.try_take(lane)
            {
                sets.push(std::mem::take(&mut more.requests));
                all.push(more);
            }
            let mut requests: Vec<Request> = sets.into_iter().flatten().collect();
            requests.retain(|request| !request.is_abandoned());
            for late in requests.extract_if(.., |request| request.since().elapsed() > self.patience) {
                late.fail(Fault::Unavailable(cause("the database is too busy")));
            }
            match self.connected(&mut connection, lane == 0) {
                Ok(open) if lane == 0 => {
                    self.write(open, requests);
                    self.shorten_log(&mut connection, &mut log_failed);
                }
                Ok(open) => {
                    let _reads = self.log.read().unwrap_or_else(PoisonError::into_inner);
                    read(open, requests);
                }
                Err(error) => fail(requests, error),
            }
            // After an error it may be in any state; a new one is in none.
            if connection.as_ref().is_some_and(|open: &Connection| !open.is_autocommit()) {
                connection = None;
            }
            drop::<Vec<Taken>>(all);
        }
    }

    /// Writes the write-ahead log back and begins it anew, if it has grown. As long as somebody reads, SQLite only appends to it,
    /// and somebody always reads; so the readers here are asked to wait a moment. `failed` is when it last did not succeed:
    /// another process may read, too.
    fn shorten_log(&self, connection: &mut Option<Connection>, failed: &mut Option<Instant>) {
        let mut log = self.file.path().as_os_str().to_owned();
        log.push("-wal");
        let has_grown = fs::metadata(log).is_ok_and(|log| log.len() > MAX_LOG_BYTES.into());
        if !has_grown {
            *failed = None;
        }
        if !has_grown || failed.is_some_and(|at| at.elapsed() < LOG_PAUSE) {
            return;
        }
        let Some(open) = connection.as_mut().filter(|open| open.is_autocommit()) else { return };
        let _alone = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let _ = open.busy_timeout(Duration::from_millis(LOG_PATIENCE_MS.into()));
        let is_busy = open.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, bool>(0));
        let _ = open.busy_timeout(self.patience);
        *failed = (!matches!(is_busy, Ok(false))).then(Instant::now);
    }

    fn connected<'c>(&self, connection: &'c mut Option<Connection>, writes: bool) -> Result<&'c mut Connection, Error> {
        if connection.is_none() {
            let reads_only = self.file.is_read_only();
            let access = if reads_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
            let open = Connection::open_with_flags(self.file.path(), access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            open.busy_timeout(self.patience)?;
            open.pragma_update(None, "foreign_keys", true)?;
            if !reads_only {
                // A reply is a promise: what it says is on the disk.
                open.pragma_update(None, "journal_mode", "wal")?;
                open.pragma_update(None, "synchronous", "full")?;
                open.pragma_update(None, "journal_size_limit", MAX_LOG_BYTES)?;
            }
            open.pragma_update(None, "query_only", !writes)?;
            *connection = Some(open);
        }
        Ok(connection.as_mut().expect("it has just been made"))
    }

    /// Does what is asked, commits once, and answers.
    fn write(&self, connection: &mut Connection, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        if let Err(error) = connection.execute_batch("begin immediate") {
            return fail(requests, error);
        }
        let mut done: Vec<(Request, Result<Done, Fault>)> = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        let mut broken = None;
        for request in requests.by_ref() {
            match within_savepoint(connection, &request) {
                Ok(outcome) => done.push((request, Ok(outcome))),
                Err(Failed::Refused(fault)) => done.push((request, Err(fault))),
                // SQLite has ended the transaction by itself: the disk is full, or fails. Nothing of it is kept.
                Err(Failed::Database(error)) if connection.is_autocommit() => {
                    done.push((request, Err(Fault::defect("it is replaced below"))));
                    broken = Some(error);
                    break;
                }
                Err(Failed::Database(error)) => done.push((request, Err(fault(error)))),
            }
        }
        let kept = match broken {
            Some(error) => Err(error),
            None => connection.execute_batch("commit"),
        };
        let refusal = match kept {
            Ok(()) if self.file.is_in_place() => None,
            Ok(()) => Some(Fault::NotReady { reason: super::GONE, cause: None }),
            Err(error) => {
                // If the transaction is still there, it must not become a part of the next one.
                let _ = connection.execute_batch("rollback");
                Some(fault(error))
            }
        };
        match refusal {
            None => done.into_iter().for_each(|(request, outcome)| answer(request, outcome)),
            Some(fault) => {
                let all = done.into_iter().map(|(request, _)| request).chain(requests);
                all.for_each(|request| request.fail(super::shared(&fault)));
            }
        }
    }
}

/// Refuses a request whose token was issued before its owner's block ends.
fn refuse_blocked(on: &Connection, owner: &Owner) -> Result<(), Failed> {
    let is_blocked = on
        .prepare_cached("select 1 from users where id = ?1 and tokens_from > ?2")?
        .exists(params![owner.id(), owner.issued_at_secs()])?;
    if is_blocked { Err(Failed::Refused(Fault::blocked())) } else { Ok(()) }
}

fn fail(requests: Vec<Request>, error: Error) {
    let fault = fault(error);
    for request in requests {
        request.fail(super::shared(&fault));
    }
}

/// What an error of the database means for a request.
fn fault(error: Error) -> Fault {
    let passes = match &error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
        ),
        _ => false,
    };
    let cause: Cause = Arc::new(error);
    if passes { unavailable(&cause) } else { Fault::Database(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::Policy;

    #[test]
    fn what_is_answered_is_on_the_disk_and_readers_only_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = DatabaseFile::open(&folder.path().join("deep/er/tasks.db"), false).unwrap();
        let queue = Queue::new(lanes(1), Policy::default(), Duration::from_secs(3));
        let sqlite = Sqlite::new(Arc::new(file), queue, Duration::from_millis(1234));
        for (writes, query_only) in [(true, "0"), (false, "1")] {
            let mut connection = None;
            let connection = sqlite.connected(&mut connection, writes).unwrap();
            for (pragma, expected) in [
                ("journal_mode", "wal"),
                ("synchronous", "2"),
                ("foreign_keys", "1"),
                ("busy_timeout", "1234"),
                ("journal_size_limit", "16777216"),
                ("query_only", query_only),
            ] {
                let value: rusqlite::types::Value =
                    connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
                let value = match value {
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    other => panic!("{pragma} is {other:?}"),
                };
                assert_eq!(value, expected, "{pragma}");
            }
        }
    }
}

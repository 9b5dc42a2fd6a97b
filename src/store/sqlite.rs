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

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};
use uuid::Uuid;

use super::{
    changes::{Entry, Following, Found, What},
    file::DatabaseFile,
    idempotency::IdempotentRequest,
    queue::{Queue, Roles, Taken},
    request::{
        Alteration, Completion, Creation, Kind, Listed, Listing, Outcome, Page, Removal, Request, cause, is_expected,
        unavailable,
    },
    statements::{COLUMN_COUNT, COLUMNS},
};
use crate::{
    auth::Owner,
    changes::DeletedTask,
    problem::{Cause, Fault},
    task::{Description, Task, TaskId, TaskStatus, Timestamp, Title},
};

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

/// What a request that writes came to.
enum Done {
    Outcome(Outcome),
    Removed,
}

fn answer(request: Request, outcome: Result<Done, Fault>) {
    match (request, outcome) {
        (request, Err(fault)) => request.fail(fault),
        (Request::Create(create), Ok(Done::Outcome(outcome))) => create.answer(Ok(outcome)),
        (Request::Change(change), Ok(Done::Outcome(outcome))) => change.answer(Ok(outcome)),
        (Request::Remove(remove), Ok(Done::Removed)) => remove.answer(Ok(())),
        (request, Ok(_)) => request.fail(Fault::defect("an answer was for another kind of request")),
    }
}

/// Does what one request asks, or nothing.
fn within_savepoint(connection: &Connection, request: &Request) -> Result<Done, Failed> {
    refuse_blocked(connection, request.owner())?;
    connection.prepare_cached("savepoint one")?.execute([])?;
    let done = match request {
        Request::Create(create) => create_task(connection, &create.owner, &create.work).map(Done::Outcome),
        Request::Change(change) => change_task(connection, &change.owner, &change.work).map(Done::Outcome),
        Request::Remove(remove) => remove_task(connection, &remove.owner, &remove.work).map(|()| Done::Removed),
        Request::Get(_) | Request::List(_) | Request::Changes(_) => {
            Err(Failed::Refused(Fault::defect("it does not write")))
        }
    };
    if done.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("rollback to one")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("release one")?.execute([])?;
    }
    done
}

/// Refuses a request whose token was issued before its owner's block ends.
fn refuse_blocked(on: &Connection, owner: &Owner) -> Result<(), Failed> {
    let is_blocked = on
        .prepare_cached("select 1 from users where id = ?1 and tokens_from > ?2")?
        .exists(params![owner.id(), owner.issued_at_secs()])?;
    if is_blocked { Err(Failed::Refused(Fault::blocked())) } else { Ok(()) }
}

fn create_task(on: &Connection, owner: &Owner, Creation { task, once }: &Creation) -> Result<Outcome, Failed> {
    if let Some(replayed) = replayed(on, owner, once.as_ref())? {
        return Ok(replayed);
    }
    let revision = if let Some(revision) = bump(on, owner)? {
        revision
    } else {
        // The owner's first task. The first revision is the time: whoever is erased and comes again does not come to the
        // same revisions again, and what was deleted before is not remembered.
        let first = DateTime::<Utc>::from(task.created_at).timestamp_micros();
        let sql = "insert into users (id, revision, swept_revision) values (?1, ?2, ?2)";
        on.prepare_cached(sql)?.execute(params![owner.id(), first])?;
        first
    };
    let sql = format!("insert into tasks ({COLUMNS}, revision) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    write_task(on, &sql, owner, task, revision)?;
    remember(on, owner, once.as_ref(), task)?;
    Ok(Outcome::first(task.clone()))
}

fn change_task(on: &Connection, owner: &Owner, change: &Alteration) -> Result<Outcome, Failed> {
    if let Some(replayed) = replayed(on, owner, change.once.as_ref())? {
        return Ok(replayed);
    }
    let mut task = find(on, owner, change.id)?.ok_or(Failed::Refused(Fault::NoSuchTask))?;
    if !is_expected(&change.expected, task.version) {
        return Err(Failed::Refused(Fault::VersionMismatch { current: Box::new(task) }));
    }
    let completed = match change.completion {
        Completion::Keep => task.completed,
        Completion::Complete => true,
        Completion::Reopen => false,
        Completion::Flip => !task.completed,
    };
    if change.always || completed != task.completed {
        let revision = bump(on, owner)?.ok_or_else(|| Failed::Refused(Fault::defect("a task has no owner")))?;
        if completed != task.completed {
            task.completed_at = completed.then_some(change.at.max(task.created_at));
            task.completed = completed;
        }
        if let Some(title) = &change.title {
            task.title = title.clone();
        }
        if !change.description.is_undefined() {
            task.description = change.description.clone().take();
        }
        // It never goes back, though the change may have been asked for before the last one was made.
        task.updated_at = task.updated_at.max(change.at);
        let next = task.version.checked_add(1);
        task.version = next.ok_or_else(|| Failed::Refused(Fault::defect("the task has its last version")))?;
        let sql = "update tasks set title = ?3, description = ?4, completed_at = ?5, created_at = ?6, updated_at = ?7, \
                   version = ?8, revision = ?9 where user_id = ?1 and id = ?2";
        write_task(on, sql, owner, &task, revision)?;
    }
    remember(on, owner, change.once.as_ref(), &task)?;
    Ok(Outcome::first(task))
}

fn remove_task(on: &Connection, owner: &Owner, Removal { id, expected, at }: &Removal) -> Result<(), Failed> {
    let task = find(on, owner, *id)?.ok_or(Failed::Refused(Fault::NoSuchTask))?;
    if !is_expected(expected, task.version) {
        return Err(Failed::Refused(Fault::VersionMismatch { current: Box::new(task) }));
    }
    on.prepare_cached("delete from tasks where user_id = ?1 and id = ?2")?.execute(params![owner.id(), id.0])?;
    let revision = bump(on, owner)?.ok_or_else(|| Failed::Refused(Fault::defect("a task has no owner")))?;
    let sql = "insert into deleted_tasks (user_id, revision, id, deleted_at) values (?1, ?2, ?3, ?4)";
    on.prepare_cached(sql)?.execute(params![owner.id(), revision, id.0, text(*at)])?;
    Ok(())
}

/// Writes a task, with its columns in their order, and the revision last.
fn write_task(on: &Connection, sql: &str, owner: &Owner, task: &Task, revision: i64) -> Result<(), Error> {
    on.prepare_cached(sql)?.execute(params![
        owner.id(),
        task.id.0,
        task.title.0,
        task.description.as_ref().map(|text| &text.0),
        task.completed_at.map(text),
        text(task.created_at),
        text(task.updated_at),
        task.version,
        revision,
    ])?;
    Ok(())
}

/// Raises the owner's revision, if the owner has a row.
fn bump(on: &Connection, owner: &Owner) -> Result<Option<i64>, Error> {
    on.prepare_cached("update users set revision = revision + 1 where id = ?1 returning revision")?
        .query_row([owner.id()], |row| row.get(0))
        .optional()
}

/// What a request with this key was answered before, if it was.
fn replayed(on: &Connection, owner: &Owner, once: Option<&IdempotentRequest>) -> Result<Option<Outcome>, Failed> {
    let Some(request) = once else { return Ok(None) };
    let stored = on
        .prepare_cached("select fingerprint, answer from idempotency_keys where user_id = ?1 and key = ?2")?
        .query_row([owner.id(), request.key()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let replayed = stored.map(|(fingerprint, answer)| super::replay(once, &fingerprint, &answer));
    replayed.transpose().map_err(Failed::Refused)
}

/// Stores the response of an idempotent request.
fn remember(on: &Connection, owner: &Owner, once: Option<&IdempotentRequest>, task: &Task) -> Result<(), Failed> {
    let Some(request) = once else { return Ok(()) };
    let answer = serde_json::to_string(task).expect("a task is plain data");
    let sql =
        "insert into idempotency_keys (user_id, key, fingerprint, answer, created_at) values (?1, ?2, ?3, ?4, ?5)";
    let at = text(crate::clock::Clock.now());
    on.prepare_cached(sql)?.execute(params![owner.id(), request.key(), request.fingerprint(), answer, at])?;
    Ok(())
}

/// Serves requests that read, all in one snapshot.
fn read(connection: &mut Connection, requests: Vec<Request>) {
    if let Err(error) = connection.execute_batch("begin") {
        return fail(requests, error);
    }
    for request in requests {
        if let Err(failed) = refuse_blocked(connection, request.owner()) {
            request.fail(failed.into());
            continue;
        }
        match request {
            Request::Get(get) => {
                let task = find(connection, &get.owner, get.work);
                get.answer(task.map_err(fault).and_then(|task| task.ok_or(Fault::NoSuchTask)));
            }
            Request::List(list) => {
                let listed = list_tasks(connection, &list.owner, &list.work);
                list.answer(listed.map_err(fault));
            }
            Request::Changes(follow) => {
                let found = changes(connection, &follow.owner, &follow.work);
                let told = found.map_err(fault).and_then(|found| found.tell(&follow.owner, &follow.work));
                follow.answer(told);
            }
            other => other.fail(Fault::defect("it does not read")),
        }
    }
    // Nothing has been written. If it can't be ended, the connection is given up.
    let _ = connection.execute_batch("commit");
}

fn find(on: &Connection, owner: &Owner, id: TaskId) -> Result<Option<Task>, Error> {
    let mut statement = on.prepare_cached(&format!("select {COLUMNS} from tasks where user_id = ?1 and id = ?2"))?;
    statement.query_row(params![owner.id(), id.0], task).optional()
}

fn list_tasks(on: &Connection, owner: &Owner, listing: &Listing) -> Result<Listed, Error> {
    let revision = on
        .prepare_cached("select revision from users where id = ?1")?
        .query_row([owner.id()], |row| row.get(0))
        .optional()?
        .unwrap_or(super::NO_REVISION);
    if [listing.callers, listing.kept].contains(&Some(revision)) {
        return Ok(Listed::Unchanged { revision });
    }
    let of_status = match listing.status {
        TaskStatus::All => "",
        TaskStatus::Pending => "and completed_at is null",
        TaskStatus::Completed => "and completed_at is not null",
    };
    let sql =
        format!("select {COLUMNS} from tasks where user_id = ?1 and id < ?2 {of_status} order by id desc limit ?3");
    let below = listing.after.map_or(Uuid::max(), |after| after.0);
    // One more than asked for tells whether there are more.
    let most = i64::from(listing.limit) + 1;
    let mut statement = on.prepare_cached(&sql)?;
    let tasks = statement.query_map(params![owner.id(), below, most], task)?.collect::<Result<_, _>>()?;
    Ok(Listed::Page(Page::of(revision, tasks, listing.limit)))
}

fn changes(on: &Connection, owner: &Owner, following: &Following) -> Result<Found, Error> {
    let user: Option<(i64, i64)> = on
        .prepare_cached("select revision, swept_revision from users where id = ?1")?
        .query_row([owner.id()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut entries = Vec::new();
    let since = following.since;
    if user.is_none_or(|(revision, _)| since.end_revision() != Some(revision)) {
        let sql = format!(
            "select {COLUMNS}, revision from tasks where user_id = ?1 and (revision, id) > (?2, ?3) \
             order by revision, id limit ?4"
        );
        let mut statement = on.prepare_cached(&sql)?;
        let of_tasks = params![owner.id(), since.revision, since.id, following.most()];
        for entry in statement.query_map(of_tasks, |row| {
            Ok(Entry { revision: row.get(COLUMN_COUNT)?, what: What::Changed(task(row)?) })
        })? {
            entries.push(entry?);
        }
        let mut statement = on.prepare_cached(
            "select revision, id, deleted_at from deleted_tasks where user_id = ?1 and (revision, id) > (?2, ?3) \
             order by revision, id limit ?4",
        )?;
        let (after, after_id) = following.deletions_after();
        for entry in statement.query_map(params![owner.id(), after, after_id, following.most()], |row| {
            let deleted_at = time(row, 2)?.ok_or_else(|| missing(2))?.into();
            Ok(Entry {
                revision: row.get(0)?,
                what: What::Deleted(DeletedTask { id: TaskId(row.get(1)?), deleted_at }),
            })
        })? {
            entries.push(entry?);
        }
    }
    Ok(Found { user, entries })
}

fn time(row: &Row<'_>, at: usize) -> Result<Option<DateTime<Utc>>, Error> {
    // As it is written here, for which this is the quickest way. What others have written may have another form.
    let ours = row.get_ref(at)?.as_str().ok().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    ours.map_or_else(|| row.get::<_, Option<DateTime<Utc>>>(at), |time| Ok(Some(time.to_utc())))
}

fn missing(at: usize) -> Error {
    Error::InvalidColumnType(at, String::new(), rusqlite::types::Type::Null)
}

fn task(row: &Row<'_>) -> Result<Task, Error> {
    let needed = |at: usize| Ok::<Timestamp, Error>(time(row, at)?.ok_or_else(|| missing(at))?.into());
    let completed_at = time(row, 4)?.map(Timestamp::from);
    Ok(Task {
        user_id: row.get(0)?,
        id: TaskId(row.get(1)?),
        title: Title(row.get(2)?),
        description: row.get::<_, Option<String>>(3)?.map(Description),
        completed: completed_at.is_some(),
        completed_at,
        created_at: needed(5)?,
        updated_at: needed(6)?,
        version: row.get(7)?,
    })
}

fn text(at: Timestamp) -> String {
    at.to_string()
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

    #[test]
    fn what_is_answered_is_on_the_disk_and_readers_only_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = DatabaseFile::open(&folder.path().join("deep/er/tasks.db"), false).unwrap();
        let queue = Queue::new(lanes(1), false, Duration::from_secs(3));
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

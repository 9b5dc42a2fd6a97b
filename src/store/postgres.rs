//! PostgreSQL: lanes that each own a connection and serve sets of requests.
//!
//! A set is one statement, which is its own transaction: nobody begins one that could be forgotten, and a connection never
//! goes back to a pool. What one request of a set breaks does not fail the others: a set that fails as a whole has been rolled
//! back, and its requests are tried again alone.

use std::{
    cmp::Reverse,
    collections::HashMap,
    panic::AssertUnwindSafe,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection, Error as SqlxError, PgConnection, Row,
    postgres::{PgArguments, PgConnectOptions, PgDatabaseError, PgRow},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    changes::{Entry, Found, Told, What},
    functions,
    idempotency::IdempotentRequest,
    is_lost,
    places::Places,
    pooler::{self, PoolerCheck},
    queue::{Queue, Roles},
    request::{Change, Create, Follow, Get, Kind, List, Listed, Outcome, Page, Remove, Request, cause, unavailable},
    session::Sessions,
    statements::{self, Waits, outcome},
};
use crate::{
    auth::Owner,
    changes::DeletedTask,
    config::{self, Sets},
    problem::{Cause, Fault},
    task::{Description, ExpectedVersion, Task, TaskId, Title},
};

/// A connection that has been idle for longer is tried before something is written on it: the database may have closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// How long such a trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a set may take. Nothing in it waits for others, so this is for a database, or a network, that hangs. The session
/// gives up a little earlier by itself.
const SET_TIMEOUT: Duration = Duration::from_secs(5);
/// After what time a connection is tried for again.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// After how many sets on a connection its statements are planned anew for the first time.
const FIRST_NEW_PLANS: u64 = 64;
/// After what time a request is tried again whose task somebody else has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// How often it is asked on which machines the owners are: they move seldom.
const PLACES_AGE: Duration = Duration::from_mins(1);
/// How often a request that waits for locks is tried, if it loses against others.
const MAX_ATTEMPTS: usize = 4;
/// No id is greater.
const LAST_ID: Uuid = Uuid::max();

/// How the driver is told to connect.
pub(super) fn options(settings: &config::Database) -> Result<PgConnectOptions, SqlxError> {
    let options = PgConnectOptions::from_str(settings.url.expose())?
        .disable_statement_logging()
        // Poolers refuse it as a parameter of the connection, and nothing here has such digits.
        .extra_float_digits(None);
    let is_named = options.get_application_name().is_some();
    Ok(if is_named { options } else { options.application_name("taskpact") })
}

/// What the lanes are for, by how many there are. Reads never wait behind writes, nor these behind those that wait for locks,
/// if there are lanes enough. More lanes make smaller sets, which cost the database more.
///
/// Where a set has one owner, and a machine that hangs may hold half of the lanes of a sort, each sort has a third.
pub(super) fn lanes(connections: usize, single_owner: bool) -> Vec<Roles> {
    let all = Roles::of(|_| true);
    let reads = Roles::of(|kind| !kind.writes());
    let sets = Roles::of(|kind| kind.writes() && kind != Kind::Patient);
    let patient = Roles::of(|kind| kind == Kind::Patient);
    match connections {
        0 | 1 => vec![all],
        2 => vec![reads, Roles::of(Kind::writes)],
        3 => vec![reads, sets, patient],
        count if single_owner => {
            let third = count / 3;
            [vec![reads; count - 2 * third], vec![sets; third], vec![patient; third]].concat()
        }
        count => {
            let waiters = (count / 6).max(1);
            let readers = (count - waiters) * 2 / 5;
            [vec![reads; readers], vec![sets; count - waiters - readers], vec![patient; waiters]].concat()
        }
    }
}

/// What all lanes share.
pub(super) struct Postgres {
    sessions: Arc<Sessions>,
    check: Arc<PoolerCheck>,
    queue: Arc<Queue>,
    /// How long a request waits for its turn.
    patience: Duration,
    sets: Sets,
    texts: &'static Texts,
    /// When it was asked on which machines the owners are.
    placed: Mutex<Option<Instant>>,
    /// Why there was no connection, the last time that one was wanted.
    outage: Mutex<Option<Cause>>,
}

/// A lane's connection.
#[derive(Default)]
struct Link {
    connection: Option<PgConnection>,
    used: Option<Instant>,
    /// How many sets it has served.
    sets: u64,
    /// Whether the last statement was given up by the session. Usually it goes on then. On Citus it may hang: it waits for the machine
    /// that does not answer to take the statement back.
    was_cancelled: bool,
}

/// Why a statement failed.
enum Failed {
    /// The database has refused it: nothing of it has been done.
    RolledBack(Arc<SqlxError>),
    /// The connection was gone before it began, or was ended and the statement with it: nothing of it has been done.
    NotDone(Cause),
    /// There is no answer, or the statement took too long. It may have been done, or be tried again for as long.
    Lost(Cause),
    /// The answer is not one to this statement, which is a defect. It may have been done.
    Broken(Cause),
}

/// What a write came to.
enum Verdict {
    Done,
    Task(Task),
    Stored { fingerprint: Vec<u8>, answer: String },
    Mismatch(Task),
    Missing,
    Locked,
    Blocked,
}

struct Texts {
    get: String,
    list: [String; 3],
    changes: String,
    /// By whether they wait, and whether there are keys.
    create: [[String; 2]; 2],
    create_one: String,
    change: [[String; 2]; 2],
    remove: [String; 2],
}

/// By whose requests a set has.
static TEXTS: LazyLock<[Texts; 2]> = LazyLock::new(|| [Sets::All, Sets::Owner].map(Texts::new));

impl Texts {
    fn new(sets: Sets) -> Self {
        let both = |text: fn(Waits, bool, Sets) -> String| {
            [Waits::No, Waits::ForOwner].map(|waits| [false, true].map(|has_keys| text(waits, has_keys, sets)))
        };
        Self {
            get: statements::get(sets),
            list: ["", "and t.completed_at is null", "and t.completed_at is not null"]
                .map(|of_status| statements::list(of_status, sets)),
            changes: statements::changes(sets),
            create: both(statements::create),
            create_one: statements::create_one(),
            change: both(statements::change),
            remove: [Waits::No, Waits::ForOwner].map(|waits| statements::remove(waits, sets)),
        }
    }
}

impl Postgres {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        check: Arc<PoolerCheck>,
        queue: Arc<Queue>,
        patience: Duration,
        sets: Sets,
    ) -> Self {
        Self {
            sessions,
            check,
            queue,
            patience,
            sets,
            texts: &TEXTS[sets as usize],
            placed: Mutex::default(),
            outage: Mutex::default(),
        }
    }

    /// Starts the lanes. They end when the queue is closed.
    pub(super) fn start(self, tasks: &mut JoinSet<()>) {
        let this = Arc::new(self);
        for lane in 0..this.queue.lanes() {
            let this = Arc::clone(&this);
            // After a panic, which is in the log, it goes on; the requests that it had are answered with a 500.
            tasks.spawn(async move { while AssertUnwindSafe(this.serve(lane)).catch_unwind().await.is_err() {} });
        }
    }

    /// Serves sets until the queue is closed.
    async fn serve(&self, lane: usize) {
        let mut link = Link::default();
        while let Some(mut taken) = self.queue.take(lane).await {
            let mut requests = std::mem::take(&mut taken.requests);
            requests.retain(|request| !request.is_abandoned());
            for late in requests.extract_if(.., |request| request.since().elapsed() > self.patience) {
                late.fail(Fault::Unavailable(self.why_late()));
            }
            match taken.kind {
                _ if requests.is_empty() => {}
                Kind::Get | Kind::ListAll | Kind::ListPending | Kind::ListCompleted | Kind::Changes => {
                    self.read(&mut link, taken.kind, requests).await;
                }
                Kind::Create | Kind::Change | Kind::Remove => self.write(&mut link, requests).await,
                Kind::Patient => {
                    for request in requests {
                        self.write_patiently(&mut link, request).await;
                    }
                }
            }
            if std::mem::take(&mut link.was_cancelled)
                && let Some(connection) = link.connection.as_mut()
                && !matches!(timeout(TRIAL_TIMEOUT, connection.ping()).await, Ok(Ok(())))
            {
                // The next set, which may be somebody else's, would wait for it.
                link.connection = None;
            }
            link.used = Some(Instant::now());
            Self::plan_anew(&mut link).await;
            self.find_places(&mut link).await;
        }
        if let Some(connection) = link.connection {
            // Whether it ends well is of no interest any more.
            let _ = timeout(TRIAL_TIMEOUT, connection.close()).await;
        }
    }

    /// Gives up the plans each time that the number of sets has doubled. They are made once, and a table that was empty then is
    /// soon too large to be read as a whole; PostgreSQL itself notices only when it analyses the table, a minute later.
    async fn plan_anew(link: &mut Link) {
        link.sets += 1;
        if let Some(connection) = link.connection.as_mut().filter(|_| link.sets.is_power_of_two())
            && link.sets >= FIRST_NEW_PLANS
            && !matches!(timeout(TRIAL_TIMEOUT, connection.clear_cached_statements()).await, Ok(Ok(())))
        {
            link.connection = None;
        }
    }

    /// Finds out on which machines the owners are, if it is time to.
    async fn find_places(&self, link: &mut Link) {
        let is_time = || {
            let mut placed = self.placed.lock().expect("nothing panics with it");
            let is_time = placed.is_none_or(|at| at.elapsed() > PLACES_AGE);
            if is_time {
                *placed = Some(Instant::now());
            }
            is_time
        };
        if self.sets == Sets::Owner
            && let Some(connection) = link.connection.as_mut()
            && is_time()
        {
            match timeout(TRIAL_TIMEOUT, Places::ask(connection)).await {
                Ok(Ok(places)) => self.queue.set_places(places),
                // Those that are known will do.
                Ok(Err(_)) | Err(_) => link.connection = None,
            }
        }
    }

    fn why_late(&self) -> Cause {
        let outage = self.outage.lock().expect("nothing panics with it").clone();
        outage.unwrap_or_else(|| cause("the database is too busy"))
    }

    /// Sees to it that there is a connection. `since` is when the request was made that waits for it.
    async fn connect<'l>(&self, link: &'l mut Link, since: Instant) -> Result<&'l mut PgConnection, Cause> {
        let outage = |cause: Option<Cause>| *self.outage.lock().expect("nothing panics with it") = cause;
        while link.connection.is_none() {
            let connecting = async {
                self.check.ensure(pooler::CHECK_AGE).await?;
                let mut connection = self.sessions.begin().await?;
                if self.sets == Sets::Owner {
                    sqlx::raw_sql(AssertSqlSafe(functions::definitions())).execute(&mut connection).await?;
                }
                Ok(connection)
            };
            let late = || Err(SqlxError::Io(std::io::ErrorKind::TimedOut.into()));
            match timeout(self.patience, connecting).await.unwrap_or_else(|_| late()) {
                Ok(connection) => {
                    link.connection = Some(connection);
                    outage(None);
                }
                Err(error) => {
                    let passes = super::is_transient_in_sqlx(&error);
                    let cause: Cause = Arc::new(error);
                    outage(Some(Cause::clone(&cause)));
                    if !passes || since.elapsed() > self.patience {
                        return Err(cause);
                    }
                    sleep(CONNECT_PAUSE).await;
                }
            }
        }
        Ok(link.connection.as_mut().expect("it has just been made"))
    }

    /// Runs a statement, and gives up the connection if there is no answer.
    async fn run(
        &self,
        link: &mut Link,
        text: &'static str,
        arguments: PgArguments,
        limit: Duration,
    ) -> Result<Vec<PgRow>, Failed> {
        let connection = link.connection.as_mut().expect("whoever runs a statement has connected");
        let failed = match timeout(limit, sqlx::query_with(text, arguments).fetch_all(connection)).await {
            Ok(Ok(rows)) => return Ok(rows),
            // The session's own limit.
            Ok(Err(error)) if code(&error) == CANCELLED => {
                link.was_cancelled = true;
                return Err(Failed::Lost(Arc::new(error)));
            }
            Ok(Err(error)) if is_undone_with_connection(&error) => Failed::NotDone(Arc::new(error)),
            Ok(Err(error)) if is_lost(&error) => Failed::Lost(Arc::new(error)),
            // It leads to a standby, and would for ever.
            Ok(Err(error)) if code(&error) == READS_ONLY => Failed::RolledBack(Arc::new(error)),
            Ok(Err(error @ SqlxError::Database(_))) => return Err(Failed::RolledBack(Arc::new(error))),
            Ok(Err(error)) => Failed::Lost(Arc::new(error)),
            Err(_) => Failed::Lost(Arc::new(SqlxError::Io(std::io::ErrorKind::TimedOut.into()))),
        };
        // What may still come on it would be taken for the answer to something else.
        link.connection = None;
        Err(failed)
    }

    /// Serves requests that only read. They are repeated on another connection if one is lost.
    async fn read(&self, link: &mut Link, kind: Kind, requests: Vec<Request>) {
        match self.read_set(link, kind, &requests).await {
            Ok(answers) => answers.into_iter().zip(requests).for_each(|(answer, request)| answer.give(request)),
            // One of them is to blame. Which one, each alone shows.
            Err(Failed::RolledBack(cause)) if requests.len() == 1 => {
                for request in requests {
                    request.fail(Fault::from(Arc::clone(&cause)));
                }
            }
            Err(Failed::RolledBack(_)) => {
                for request in requests {
                    Box::pin(self.read(link, kind, vec![request])).await;
                }
            }
            Err(Failed::Lost(cause) | Failed::NotDone(cause)) => fail_all(requests, || unavailable(&cause)),
            Err(Failed::Broken(cause)) => fail_all(requests, || broken(&cause)),
        }
    }

    async fn read_set(&self, link: &mut Link, kind: Kind, requests: &[Request]) -> Result<Vec<Read>, Failed> {
        let since = requests.iter().map(Request::since).min().unwrap_or_else(Instant::now);
        let mut is_repeated = false;
        loop {
            self.connect(link, since).await.map_err(Failed::Lost)?;
            let lists = requests.iter().filter_map(Request::as_list);
            let outcome = match kind {
                Kind::Get => self.get(link, requests.iter().filter_map(Request::as_get)).await,
                Kind::ListAll => self.list(link, &self.texts.list[0], lists).await,
                Kind::ListPending => self.list(link, &self.texts.list[1], lists).await,
                Kind::ListCompleted => self.list(link, &self.texts.list[2], lists).await,
                Kind::Changes => self.changes(link, requests.iter().filter_map(Request::as_follow)).await,
                Kind::Create | Kind::Change | Kind::Remove | Kind::Patient => Err(undecodable("it does not read")),
            };
            match outcome {
                // With the connection, and not because it took too long.
                Err(Failed::Lost(_) | Failed::NotDone(_)) if !is_repeated && link.connection.is_none() => {
                    is_repeated = true;
                }
                // Against a migration, whose locks meet those of readers.
                Err(Failed::RolledBack(cause)) if !is_repeated && is_lost_race(code(&cause)) => is_repeated = true,
                outcome => return outcome,
            }
        }
    }

    async fn get(&self, link: &mut Link, gets: impl Iterator<Item = &Get>) -> Result<Vec<Read>, Failed> {
        let gets: Vec<&Get> = gets.collect();
        let arguments = arguments(|all| {
            all.add(column(&gets, |get| get.owner.id()))?;
            all.add(column(&gets, |get| get.work.0))
        });
        let mut found: Vec<Read> = gets.iter().map(|_| Read::Task(None)).collect();
        for row in self.run(link, &self.texts.get, arguments, SET_TIMEOUT).await? {
            if let Some(tokens_from) = column_of(&row, 1 + statements::COLUMN_COUNT)? {
                let blocked: String = column_of(&row, 1)?;
                for (get, found) in gets.iter().zip(&mut found).filter(|(get, _)| get.owner.id() == blocked) {
                    if is_blocked(&get.owner, Some(tokens_from)) {
                        *found = Read::Blocked;
                    }
                }
                continue;
            }
            let n = place(&row, found.len())?;
            let (get, task) = (gets[n], task(&row, 1)?);
            // Of the owner and the id that were asked for, or of nobody.
            if task.user_id == get.owner.id() && task.id == get.work && !matches!(found[n], Read::Blocked) {
                found[n] = Read::Task(Some(task));
            }
        }
        Ok(found)
    }

    async fn list(
        &self,
        link: &mut Link,
        text: &'static str,
        lists: impl Iterator<Item = &List>,
    ) -> Result<Vec<Read>, Failed> {
        // Who asks for the same is given the same.
        // Whether they may have it, each one's token decides.
        let (mut asked, mut places) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for list in lists {
            let place = *known.entry((&list.owner, &list.work)).or_insert_with(|| {
                asked.push((list.owner.id(), &list.work));
                asked.len() - 1
            });
            places.push((&list.owner, place));
        }
        let column = |of: fn(&super::request::Listing) -> Option<i64>| {
            asked.iter().map(|(_, work)| of(work)).collect::<Vec<_>>()
        };
        let arguments = arguments(|all| {
            all.add(asked.iter().map(|(owner, _)| *owner).collect::<Vec<_>>())?;
            all.add(asked.iter().map(|(_, work)| work.after.map_or(LAST_ID, |id| id.0)).collect::<Vec<_>>())?;
            // One more than asked for tells whether there are more.
            all.add(asked.iter().map(|(_, work)| i64::from(work.limit) + 1).collect::<Vec<_>>())?;
            all.add(column(|work| work.callers))?;
            all.add(column(|work| work.kept))
        });
        let mut found: Vec<(i64, Option<i64>, Vec<Task>)> = vec![(super::NO_REVISION, None, Vec::new()); asked.len()];
        for row in self.run(link, text, arguments, SET_TIMEOUT).await? {
            let n = place(&row, found.len())?;
            if let Some(revision) = column_of(&row, 1)? {
                found[n].0 = revision;
            }
            found[n].1 = column_of(&row, 2)?;
            let is_page: Option<Uuid> = column_of(&row, 4)?;
            if is_page.is_some() {
                found[n].2.push(task(&row, 3)?);
            }
        }
        let mut answers = Vec::new();
        for ((owner, work), (revision, tokens_from, mut tasks)) in asked.iter().zip(found) {
            tasks.retain(|task| task.user_id == *owner);
            // They come in this order, which the statement can't promise.
            tasks.sort_unstable_by_key(|task| Reverse(task.id.0));
            let listed = if [work.callers, work.kept].contains(&Some(revision)) {
                Listed::Unchanged { revision }
            } else {
                Listed::Page(Page::of(revision, tasks, work.limit))
            };
            answers.push((tokens_from, listed));
        }
        let answer = |(owner, place): (&Owner, usize)| {
            let (tokens_from, listed) = &answers[place];
            if is_blocked(owner, *tokens_from) { Read::Blocked } else { Read::List(listed.clone()) }
        };
        Ok(places.into_iter().map(answer).collect())
    }

    async fn changes(&self, link: &mut Link, follows: impl Iterator<Item = &Follow>) -> Result<Vec<Read>, Failed> {
        let all: Vec<&Follow> = follows.collect();
        let arguments = arguments(|to| {
            to.add(column(&all, |follow| follow.owner.id()))?;
            to.add(column(&all, |follow| follow.work.since.revision))?;
            to.add(column(&all, |follow| follow.work.since.id))?;
            to.add(column(&all, |follow| follow.work.deletions_after().0))?;
            to.add(column(&all, |follow| follow.work.deletions_after().1))?;
            to.add(column(&all, |follow| follow.work.most()))?;
            to.add(column(&all, |follow| follow.work.since.end_revision()))
        });
        let mut found: Vec<Found> = all.iter().map(|_| Found::default()).collect();
        let mut tokens_from = vec![None; all.len()];
        for row in self.run(link, &self.texts.changes, arguments, SET_TIMEOUT).await? {
            let n = place(&row, found.len())?;
            let revisions = column_of::<Option<i64>>(&row, 1)?.zip(column_of(&row, 2)?);
            found[n].user = revisions;
            tokens_from[n] = column_of(&row, 3)?;
            let Some(revision) = column_of::<Option<i64>>(&row, 4 + statements::COLUMN_COUNT)? else { continue };
            // Only what is this owner's.
            if column_of::<String>(&row, 4)? != all[n].owner.id() {
                continue;
            }
            let deleted_at: Option<DateTime<Utc>> = column_of(&row, 5 + statements::COLUMN_COUNT)?;
            let what = match deleted_at {
                Some(at) => What::Deleted(DeletedTask { id: TaskId(column_of(&row, 5)?), deleted_at: at.into() }),
                None => What::Changed(task(&row, 4)?),
            };
            found[n].entries.push(Entry { revision, what });
        }
        let told = |((follow, found), tokens_from): ((&&Follow, Found), Option<i64>)| {
            let is_blocked = is_blocked(&follow.owner, tokens_from);
            if is_blocked { Read::Blocked } else { Read::Changes(found.tell(&follow.owner, &follow.work)) }
        };
        Ok(all.iter().zip(found).zip(tokens_from).map(told).collect())
    }

    /// Serves requests that write.
    async fn write(&self, link: &mut Link, requests: Vec<Request>) {
        match self.write_set(link, &requests, Waits::No).await {
            Ok(verdicts) => {
                for (request, verdict) in requests.into_iter().zip(verdicts) {
                    if let Some(locked) = settle(request, verdict) {
                        self.queue.hand_over(locked);
                    }
                }
            }
            Err(Failed::RolledBack(cause)) if requests.len() == 1 => {
                for request in requests {
                    if is_lost_race(code(&cause)) {
                        self.queue.hand_over(request);
                    } else {
                        request.fail(Fault::from(Arc::clone(&cause)));
                    }
                }
            }
            Err(Failed::RolledBack(_)) => {
                for request in requests {
                    Box::pin(self.write(link, vec![request])).await;
                }
            }
            // Nobody knows whether it was done; or it was tried twice.
            Err(Failed::Lost(cause) | Failed::NotDone(cause)) => fail_all(requests, || unavailable(&cause)),
            Err(Failed::Broken(cause)) => fail_all(requests, || broken(&cause)),
        }
    }

    /// Serves a single request that waits for whoever has locked what it needs.
    async fn write_patiently(&self, link: &mut Link, request: Request) {
        for attempt in 1.. {
            match self.write_set(link, std::slice::from_ref(&request), Waits::ForOwner).await {
                Ok(mut verdicts) => {
                    let verdict = verdicts.pop().unwrap_or(Verdict::Locked);
                    if let Some(locked) = settle(request, verdict) {
                        self.try_later(locked);
                    }
                    return;
                }
                Err(Failed::RolledBack(cause)) => match code(&cause) {
                    // Whoever holds the lock has the key, too.
                    "55P03" if request.once().is_some() => return request.fail(Fault::KeyInUse),
                    code if is_lost_race(code) && code != "55P03" && attempt < MAX_ATTEMPTS => {}
                    code if is_lost_race(code) => return request.fail(Fault::Unavailable(cause)),
                    _ => return request.fail(Fault::from(cause)),
                },
                Err(Failed::Lost(cause) | Failed::NotDone(cause)) => return request.fail(unavailable(&cause)),
                Err(Failed::Broken(cause)) => return request.fail(broken(&cause)),
            }
        }
    }

    /// Tries a request again whose task is locked, until that takes too long. Meanwhile it holds nothing.
    fn try_later(&self, request: Request) {
        if request.since().elapsed() > Duration::from_millis(super::LOCK_TIMEOUT_MS) {
            return request.fail(Fault::Unavailable(cause("somebody else has locked the task")));
        }
        let queue = Arc::clone(&self.queue);
        tokio::spawn(async move {
            sleep(LOCKED_PAUSE).await;
            queue.hand_over(request);
        });
    }

    /// Serves requests that write, and repeats them on another connection if one is lost and nothing can have been done.
    async fn write_set(&self, link: &mut Link, requests: &[Request], waits: Waits) -> Result<Vec<Verdict>, Failed> {
        match self.try_write_set(link, requests, waits).await {
            Err(Failed::NotDone(_)) => self.try_write_set(link, requests, waits).await,
            outcome => outcome,
        }
    }

    async fn try_write_set(&self, link: &mut Link, requests: &[Request], waits: Waits) -> Result<Vec<Verdict>, Failed> {
        let is_trusted = link.used.is_some_and(|used| used.elapsed() < TRUSTED_IDLE);
        if let Some(connection) = link.connection.as_mut().filter(|_| !is_trusted)
            && !matches!(timeout(TRIAL_TIMEOUT, connection.ping()).await, Ok(Ok(())))
        {
            link.connection = None;
        }
        let since = requests.iter().map(Request::since).min().unwrap_or_else(Instant::now);
        self.connect(link, since).await.map_err(Failed::Lost)?;
        match requests.first() {
            Some(Request::Create(_)) => self.create(link, requests, waits).await,
            Some(Request::Change(_)) => self.change(link, requests, waits).await,
            Some(Request::Remove(_)) => self.remove(link, requests, waits).await,
            Some(Request::Get(_) | Request::List(_) | Request::Changes(_)) | None => {
                Err(undecodable("it does not write"))
            }
        }
    }

    async fn create(&self, link: &mut Link, requests: &[Request], waits: Waits) -> Result<Vec<Verdict>, Failed> {
        let all: Vec<&Create> = requests.iter().filter_map(Request::as_create).collect();
        let has_keys = have_keys(requests);
        let time = |at| DateTime::<Utc>::from(at);
        if let ([create], false, Waits::No, Sets::All) = (&all[..], has_keys, waits, self.sets) {
            let task = &create.work.task;
            let arguments = arguments(|to| {
                to.add(create.owner.id())?;
                to.add(task.id.0)?;
                to.add(&*task.title.0)?;
                to.add(task.description.as_ref().map(|text| &*text.0))?;
                to.add(task.completed_at.map(time))?;
                to.add(time(task.created_at))?;
                to.add(create.owner.issued_at_secs())
            });
            return self.created(link, &self.texts.create_one, arguments, waits, &all).await;
        }
        let arguments = arguments(|to| {
            to.add(owners(requests))?;
            to.add(column(&all, |create| create.work.task.id.0))?;
            to.add(column(&all, |create| &*create.work.task.title.0))?;
            to.add(column(&all, |create| create.work.task.description.as_ref().map(|text| &*text.0)))?;
            to.add(column(&all, |create| create.work.task.completed_at.map(time)))?;
            to.add(column(&all, |create| time(create.work.task.created_at)))?;
            to.add(issued(requests))?;
            if has_keys {
                add_keys(to, requests)?;
                let answer = |create: &&Create| serde_json::to_string(&create.work.task).expect("a task is plain data");
                to.add(column(&all, |create| create.work.once.as_ref().map(|_| answer(&create))))?;
            }
            Ok(())
        });
        self.created(link, &self.texts.create[waits as usize][usize::from(has_keys)], arguments, waits, &all).await
    }

    /// Runs a statement that creates tasks, and reads what each request came to.
    async fn created(
        &self,
        link: &mut Link,
        text: &'static str,
        arguments: PgArguments,
        waits: Waits,
        all: &[&Create],
    ) -> Result<Vec<Verdict>, Failed> {
        self.verdicts(link, text, arguments, waits, all.len(), |row, n| {
            let made: Option<(String, Uuid)> = column_of::<Option<String>>(row, 1)?.zip(column_of(row, 2)?);
            Ok(match (made, stored(row, 3)?) {
                _ if column_of(row, 5)? => Verdict::Blocked,
                (_, Some(stored)) => stored,
                (Some((owner, id)), None) if owner == all[n].owner.id() && id == all[n].work.task.id.0 => Verdict::Done,
                _ => Verdict::Locked,
            })
        })
        .await
    }

    async fn change(&self, link: &mut Link, requests: &[Request], waits: Waits) -> Result<Vec<Verdict>, Failed> {
        let all: Vec<&Change> = requests.iter().filter_map(Request::as_change).collect();
        let has_keys = have_keys(requests);
        let arguments = arguments(|to| {
            to.add(owners(requests))?;
            to.add(column(&all, |change| change.work.id.0))?;
            to.add(column(&all, |change| expected(&change.work.expected)))?;
            to.add(column(&all, |change| change.work.title.as_ref().map(|title| &*title.0)))?;
            to.add(column(&all, |change| !change.work.description.is_undefined()))?;
            to.add(column(&all, |change| change.work.description.value().map(|text| &*text.0)))?;
            to.add(column(&all, |change| change.work.completion as i16))?;
            to.add(column(&all, |change| change.work.always))?;
            to.add(column(&all, |change| DateTime::<Utc>::from(change.work.at)))?;
            to.add(issued(requests))?;
            if has_keys { add_keys(to, requests) } else { Ok(()) }
        });
        let text = &self.texts.change[waits as usize][usize::from(has_keys)];
        self.verdicts(link, text, arguments, waits, all.len(), |row, n| {
            let change = all[n];
            decided(row, &change.owner, change.work.id, |row| task(row, 2).map(Verdict::Task))
        })
        .await
    }

    async fn remove(&self, link: &mut Link, requests: &[Request], waits: Waits) -> Result<Vec<Verdict>, Failed> {
        let all: Vec<&Remove> = requests.iter().filter_map(Request::as_remove).collect();
        let arguments = arguments(|to| {
            to.add(owners(requests))?;
            to.add(column(&all, |remove| remove.work.id.0))?;
            to.add(column(&all, |remove| expected(&remove.work.expected)))?;
            to.add(issued(requests))?;
            to.add(column(&all, |remove| DateTime::<Utc>::from(remove.work.at)))
        });
        self.verdicts(link, &self.texts.remove[waits as usize], arguments, waits, all.len(), |row, n| {
            let remove = all[n];
            decided(row, &remove.owner, remove.work.id, |_| Ok(Verdict::Done))
        })
        .await
    }

    /// Runs a statement that gives back a row for each request of the set, and reads what each came to.
    async fn verdicts(
        &self,
        link: &mut Link,
        text: &'static str,
        arguments: PgArguments,
        waits: Waits,
        count: usize,
        read: impl Fn(&PgRow, usize) -> Result<Verdict, Failed>,
    ) -> Result<Vec<Verdict>, Failed> {
        let limit = match waits {
            Waits::No => SET_TIMEOUT,
            Waits::ForOwner => SET_TIMEOUT + Duration::from_millis(super::LOCK_TIMEOUT_MS),
        };
        let mut verdicts: Vec<Verdict> = (0..count).map(|_| Verdict::Locked).collect();
        for row in self.run(link, text, arguments, limit).await? {
            let n = place(&row, count)?;
            verdicts[n] = read(&row, n)?;
        }
        Ok(verdicts)
    }
}

/// What a request that reads came to.
enum Read {
    Task(Option<Task>),
    List(Listed),
    Changes(Result<Told, Fault>),
    Blocked,
}

impl Read {
    fn give(self, to: Request) {
        match (self, to) {
            (Self::Task(task), Request::Get(get)) => get.answer(task.ok_or(Fault::NoSuchTask)),
            (Self::List(listed), Request::List(list)) => list.answer(Ok(listed)),
            (Self::Changes(told), Request::Changes(follow)) => follow.answer(told),
            (Self::Blocked, request) => request.fail(Fault::blocked()),
            (_, other) => other.fail(Fault::defect("an answer was for another kind of request")),
        }
    }
}

/// Answers a request that writes. It comes back if somebody else had locked what it needs.
fn settle(request: Request, verdict: Verdict) -> Option<Request> {
    match (request, verdict) {
        (request, Verdict::Locked) => return Some(request),
        (request, Verdict::Blocked) => request.fail(Fault::blocked()),
        (request, Verdict::Missing) => request.fail(Fault::NoSuchTask),
        (request, Verdict::Mismatch(task)) => request.fail(Fault::VersionMismatch { current: Box::new(task) }),
        (Request::Create(create), Verdict::Done) => create.finish(|work| Ok(Outcome::first(work.task))),
        (Request::Create(create), Verdict::Stored { fingerprint, answer }) => {
            create.finish(|work| super::replay(work.once.as_ref(), &fingerprint, &answer));
        }
        (Request::Change(change), Verdict::Task(task)) => change.answer(Ok(Outcome::first(task))),
        (Request::Change(change), Verdict::Stored { fingerprint, answer }) => {
            change.finish(|work| super::replay(work.once.as_ref(), &fingerprint, &answer));
        }
        (Request::Remove(remove), Verdict::Done) => remove.answer(Ok(())),
        (request, _) => request.fail(Fault::defect("an answer was for another kind of request")),
    }
    None
}

/// What the row of a request to change or to delete says.
fn decided(
    row: &PgRow,
    owner: &Owner,
    id: TaskId,
    done: impl Fn(&PgRow) -> Result<Verdict, Failed>,
) -> Result<Verdict, Failed> {
    let verdict = match column_of(row, 1)? {
        outcome::STORED => stored(row, 2 + statements::COLUMN_COUNT)?.unwrap_or(Verdict::Locked),
        outcome::DONE => done(row)?,
        outcome::MISMATCH => Verdict::Mismatch(task(row, 2)?),
        outcome::MISSING => Verdict::Missing,
        outcome::BLOCKED => Verdict::Blocked,
        _ => Verdict::Locked,
    };
    match &verdict {
        Verdict::Task(task) | Verdict::Mismatch(task) if task.user_id != owner.id() || task.id != id => {
            Err(undecodable("a row strayed"))
        }
        _ => Ok(verdict),
    }
}

/// The stored response of an idempotent request, if there is one.
fn stored(row: &PgRow, from: usize) -> Result<Option<Verdict>, Failed> {
    let fingerprint: Option<Vec<u8>> = column_of(row, from)?;
    let answer: Option<String> = column_of(row, from + 1)?;
    Ok(fingerprint.zip(answer).map(|(fingerprint, answer)| Verdict::Stored { fingerprint, answer }))
}

/// The place in its set of the request that a row is for.
fn place(row: &PgRow, count: usize) -> Result<usize, Failed> {
    let n: i64 = column_of(row, 0)?;
    usize::try_from(n - 1).ok().filter(|n| *n < count).ok_or_else(|| undecodable("a row is for no request"))
}

/// The task whose columns begin at `from`.
fn task(row: &PgRow, from: usize) -> Result<Task, Failed> {
    let completed_at: Option<DateTime<Utc>> = column_of(row, from + 4)?;
    Ok(Task {
        user_id: column_of(row, from)?,
        id: TaskId(column_of(row, from + 1)?),
        title: Title(column_of(row, from + 2)?),
        description: column_of::<Option<String>>(row, from + 3)?.map(Description),
        completed: completed_at.is_some(),
        completed_at: completed_at.map(Into::into),
        created_at: column_of::<DateTime<Utc>>(row, from + 5)?.into(),
        updated_at: column_of::<DateTime<Utc>>(row, from + 6)?.into(),
        version: column_of(row, from + 7)?,
    })
}

fn column_of<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> Result<T, Failed> {
    row.try_get(at).map_err(|error| Failed::Broken(Arc::new(error)))
}

fn broken(cause: &Cause) -> Fault {
    Fault::Database(Cause::clone(cause))
}

fn fail_all(requests: Vec<Request>, fault: impl Fn() -> Fault) {
    for request in requests {
        request.fail(fault());
    }
}

fn undecodable(what: &'static str) -> Failed {
    Failed::Broken(cause(what))
}

fn owners(set: &[Request]) -> Vec<&str> {
    set.iter().map(|request| request.owner().id()).collect()
}

/// When the tokens of a set were issued.
fn issued(set: &[Request]) -> Vec<i64> {
    set.iter().map(|request| request.owner().issued_at_secs()).collect()
}

/// Whether the owner's token was issued before the owner's block ends, if there is one.
fn is_blocked(owner: &Owner, tokens_from: Option<i64>) -> bool {
    tokens_from.is_some_and(|from| owner.issued_at_secs() < from)
}

fn have_keys(set: &[Request]) -> bool {
    set.iter().any(|request| request.once().is_some())
}

/// The keys of a set, and the fingerprints.
fn add_keys(to: &mut PgArguments, set: &[Request]) -> Result<(), sqlx::error::BoxDynError> {
    let once = || set.iter().map(Request::once);
    to.add(once().map(|once| once.map(IdempotentRequest::key)).collect::<Vec<_>>())?;
    to.add(once().map(|once| once.map(IdempotentRequest::fingerprint)).collect::<Vec<_>>())
}

fn column<'s, S, T>(set: &'s [&'s S], of: impl Fn(&'s S) -> T) -> Vec<T> {
    set.iter().map(|one| of(one)).collect()
}

/// Expected versions as the text of an array; none for any.
fn expected(versions: &ExpectedVersion) -> Option<String> {
    match versions {
        ExpectedVersion::Any => None,
        ExpectedVersion::OneOf(versions) => {
            let list = versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            Some(format!("{{{list}}}"))
        }
    }
}

fn arguments(add: impl FnOnce(&mut PgArguments) -> Result<(), sqlx::error::BoxDynError>) -> PgArguments {
    let mut arguments = PgArguments::default();
    add(&mut arguments).expect("arrays of plain values can be written");
    arguments
}

/// The statement was given up.
const CANCELLED: &str = "57014";
/// The session takes no writes.
const READS_ONLY: &str = "25006";

/// Whether the connection has ended, and what was asked on it has not been done.
fn is_undone_with_connection(error: &SqlxError) -> bool {
    match error {
        // What a statement is sent in ends with what makes it take effect, and that has not been sent.
        SqlxError::Io(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
        // An operator has ended the session, or it was idle for too long. Whatever was under way in it is rolled back: once a
        // transaction is committed PostgreSQL says so before it looks whether it has to end. What a pooler says is worth less.
        _ => ["57P01", "57P05"].contains(&code(error)) && routine(error) == Some("ProcessInterrupts"),
    }
}

fn code(error: &SqlxError) -> &str {
    answered(error).map_or("", PgDatabaseError::code)
}

/// Where in PostgreSQL's source it comes from.
fn routine(error: &SqlxError) -> Option<&str> {
    answered(error)?.routine()
}

fn answered(error: &SqlxError) -> Option<&PgDatabaseError> {
    let SqlxError::Database(answer) = error else { return None };
    answer.try_downcast_ref()
}

/// Whether a statement lost against another one: a lock that it could not have, a key that was made meanwhile, an owner who was
/// erased, another transaction. Tried again, it may succeed.
fn is_lost_race(code: &str) -> bool {
    ["55P03", "23505", "23503", "40001", "40P01"].contains(&code)
}

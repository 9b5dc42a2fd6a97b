//! PostgreSQL: lanes that each own a connection and serve sets of requests.
//!
//! A set is one statement, which is its own transaction: nobody begins one that could be forgotten, and a connection never
//! goes back to a pool. What one request of a set breaks does not fail the others: a set that fails as a whole has been rolled
//! back, and its requests are tried again alone.

use std::{
    panic::AssertUnwindSafe,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Error as SqlxError, PgConnection,
    postgres::{PgArguments, PgConnectOptions, PgDatabaseError, PgRow},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    functions, is_lost,
    places::Places,
    pooler::{self, PoolerCheck},
    queue::{Queue, Roles},
    request::{Kind, Request, cause},
    session::Sessions,
    statements::{self, Waits},
};
use crate::{
    config::{self, Sets},
    problem::{Cause, Fault},
};

mod reads;
mod wire;
mod writes;

/// How long such a trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a set may take. Nothing in it waits for others, so this is for a database, or a network, that hangs. The session
/// gives up a little earlier by itself.
const SET_TIMEOUT: Duration = Duration::from_secs(5);
/// After what time a connection is tried for again.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// After how many sets on a connection its statements are planned anew for the first time.
const FIRST_NEW_PLANS: u64 = 64;
/// How often it is asked on which machines the owners are: they move seldom.
const PLACES_AGE: Duration = Duration::from_mins(1);

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
            if requests.is_empty() {
                taken.asks_nothing();
                continue;
            }
            match taken.kind {
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

//! Sets of requests that write.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{
    Arguments, Connection,
    postgres::{PgArguments, PgRow},
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    Failed, Link, Postgres, SET_TIMEOUT, TRIAL_TIMEOUT, broken, code, fail_all, is_lost_race, undecodable,
    wire::{arguments, column, column_of, place, task},
};
use crate::{
    auth::Owner,
    config::Sets,
    problem::Fault,
    store::{
        LOCK_TIMEOUT_MS,
        idempotency::IdempotentRequest,
        replay,
        request::{Change, Create, Outcome, Remove, Request, cause, unavailable},
        statements::{COLUMN_COUNT, Waits, outcome},
    },
    task::{ExpectedVersion, Task, TaskId},
};

/// A connection that has been idle for longer is tried before something is written on it: the database may have closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// After what time a request is tried again whose task somebody else has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// How often a request that waits for locks is tried, if it loses against others.
const MAX_ATTEMPTS: usize = 4;

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

impl Postgres {
    /// Serves requests that write.
    pub(super) async fn write(&self, link: &mut Link, requests: Vec<Request>) {
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
    pub(super) async fn write_patiently(&self, link: &mut Link, request: Request) {
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
        if request.since().elapsed() > Duration::from_millis(LOCK_TIMEOUT_MS) {
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
            add_owners(to, requests)?;
            to.add(column(&all, |create| create.work.task.id.0))?;
            to.add(column(&all, |create| &*create.work.task.title.0))?;
            to.add(column(&all, |create| create.work.task.description.as_ref().map(|text| &*text.0)))?;
            to.add(column(&all, |create| create.work.task.completed_at.map(time)))?;
            to.add(column(&all, |create| time(create.work.task.created_at)))?;
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
            add_owners(to, requests)?;
            to.add(column(&all, |change| change.work.id.0))?;
            to.add(column(&all, |change| expected(&change.work.expected)))?;
            to.add(column(&all, |change| change.work.title.as_ref().map(|title| &*title.0)))?;
            to.add(column(&all, |change| !change.work.description.is_undefined()))?;
            to.add(column(&all, |change| change.work.description.value().map(|text| &*text.0)))?;
            to.add(column(&all, |change| change.work.completion as i16))?;
            to.add(column(&all, |change| change.work.always))?;
            to.add(column(&all, |change| DateTime::<Utc>::from(change.work.at)))?;
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
            add_owners(to, requests)?;
            to.add(column(&all, |remove| remove.work.id.0))?;
            to.add(column(&all, |remove| expected(&remove.work.expected)))?;
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
            Waits::ForOwner => SET_TIMEOUT + Duration::from_millis(LOCK_TIMEOUT_MS),
        };
        let mut verdicts: Vec<Verdict> = (0..count).map(|_| Verdict::Locked).collect();
        for row in self.run(link, text, arguments, limit).await? {
            let n = place(&row, count)?;
            verdicts[n] = read(&row, n)?;
        }
        Ok(verdicts)
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
            create.finish(|work| replay(work.once.as_ref(), &fingerprint, &answer));
        }
        (Request::Change(change), Verdict::Task(task)) => change.answer(Ok(Outcome::first(task))),
        (Request::Change(change), Verdict::Stored { fingerprint, answer }) => {
            change.finish(|work| replay(work.once.as_ref(), &fingerprint, &answer));
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
        outcome::STORED => stored(row, 2 + COLUMN_COUNT)?.unwrap_or(Verdict::Locked),
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

/// The owners of a set, the places of the requests among those of their owners, when the tokens were issued, and the owners once
/// each, in order.
fn add_owners(to: &mut PgArguments, set: &[Request]) -> Result<(), sqlx::error::BoxDynError> {
    let owners: Vec<&str> = set.iter().map(|request| request.owner().id()).collect();
    let mut counts = BTreeMap::new();
    let mut places = Vec::with_capacity(set.len());
    for owner in &owners {
        let count = counts.entry(*owner).or_insert(0_i64);
        *count += 1;
        places.push(*count);
    }
    to.add(owners)?;
    to.add(places)?;
    to.add(set.iter().map(|request| request.owner().issued_at_secs()).collect::<Vec<_>>())?;
    to.add(counts.into_keys().collect::<Vec<_>>())
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

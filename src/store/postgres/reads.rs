//! Sets of requests that read.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use sqlx::Arguments;
use uuid::Uuid;

use super::{
    Failed, Link, Postgres, SET_TIMEOUT, broken, code, fail_all, is_lost_race, undecodable,
    wire::{arguments, column, column_of, place, task},
};
use crate::{
    auth::Owner,
    changes::DeletedTask,
    problem::Fault,
    store::{
        NO_REVISION,
        changes::{Entry, Found, Told, What},
        request::{Follow, Get, Kind, List, Listed, Listing, Page, Request, unavailable},
        statements::COLUMN_COUNT,
    },
    task::{Task, TaskId},
};

/// No id is greater.
const LAST_ID: Uuid = Uuid::max();

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

impl Postgres {
    /// Serves requests that only read. They are repeated on another connection if one is lost.
    pub(super) async fn read(&self, link: &mut Link, kind: Kind, requests: Vec<Request>) {
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
            if let Some(tokens_from) = column_of(&row, 1 + COLUMN_COUNT)? {
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
        // Who asks for the same is given the same. Whether they may have it, each one's token decides.
        let (mut asked, mut places) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for list in lists {
            let place = *known.entry((&list.owner, &list.work)).or_insert_with(|| {
                asked.push((list.owner.id(), &list.work));
                asked.len() - 1
            });
            places.push((&list.owner, place));
        }
        let column = |of: fn(&Listing) -> Option<i64>| asked.iter().map(|(_, work)| of(work)).collect::<Vec<_>>();
        let arguments = arguments(|all| {
            all.add(asked.iter().map(|(owner, _)| *owner).collect::<Vec<_>>())?;
            all.add(asked.iter().map(|(_, work)| work.after.map_or(LAST_ID, |id| id.0)).collect::<Vec<_>>())?;
            // One more than asked for tells whether there are more.
            all.add(asked.iter().map(|(_, work)| i64::from(work.limit) + 1).collect::<Vec<_>>())?;
            all.add(column(|work| work.callers))?;
            all.add(column(|work| work.kept))
        });
        let mut found: Vec<(i64, Option<i64>, Vec<Task>)> = vec![(NO_REVISION, None, Vec::new()); asked.len()];
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
            let Some(revision) = column_of::<Option<i64>>(&row, 4 + COLUMN_COUNT)? else { continue };
            // Only what is this owner's.
            if column_of::<String>(&row, 4)? != all[n].owner.id() {
                continue;
            }
            let deleted_at: Option<DateTime<Utc>> = column_of(&row, 5 + COLUMN_COUNT)?;
            let what = match deleted_at {
                Some(at) => What::Deleted(DeletedTask { id: TaskId(column_of(&row, 5)?), deleted_at: at.into() }),
                None => What::Changed(task(&row, 4)?),
            };
            found[n].entries.push(Entry { revision, what });
        }
        let told = |((follow, found), tokens_from): ((&&Follow, Found), Option<i64>)| {
            let is_blocked = is_blocked(&follow.owner, tokens_from);
            if is_blocked { Read::Blocked } else { Read::Changes(found.tell(&follow.work)) }
        };
        Ok(all.iter().zip(found).zip(tokens_from).map(told).collect())
    }
}

/// Whether the owner's token was issued before the owner's block ends, if there is one.
fn is_blocked(owner: &Owner, tokens_from: Option<i64>) -> bool {
    tokens_from.is_some_and(|from| owner.issued_at_secs() < from)
}

//! What one request that writes does, within its savepoint.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Error, OptionalExtension, params};

use super::{Failed, reads::find, refuse_blocked};
use crate::{
    auth::Owner,
    problem::Fault,
    store::{
        idempotency::IdempotentRequest,
        replay,
        request::{Alteration, Completion, Creation, Outcome, Removal, Request, is_expected},
        statements::COLUMNS,
    },
    task::{Task, Timestamp},
};

/// What a request that writes came to.
pub(super) enum Done {
    Outcome(Outcome),
    Removed,
}

pub(super) fn answer(request: Request, outcome: Result<Done, Fault>) {
    match (request, outcome) {
        (request, Err(fault)) => request.fail(fault),
        (Request::Create(create), Ok(Done::Outcome(outcome))) => create.answer(Ok(outcome)),
        (Request::Change(change), Ok(Done::Outcome(outcome))) => change.answer(Ok(outcome)),
        (Request::Remove(remove), Ok(Done::Removed)) => remove.answer(Ok(())),
        (request, Ok(_)) => request.fail(Fault::defect("an answer was for another kind of request")),
    }
}

/// Does what one request asks, or nothing.
pub(super) fn within_savepoint(connection: &Connection, request: &Request) -> Result<Done, Failed> {
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
    let replayed = stored.map(|(fingerprint, answer)| replay(once, &fingerprint, &answer));
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

fn text(at: Timestamp) -> String {
    at.to_string()
}

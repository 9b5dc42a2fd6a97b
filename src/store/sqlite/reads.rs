//! Requests that read, and how rows are read.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Error, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{fail, fault, refuse_blocked};
use crate::{
    auth::Owner,
    changes::DeletedTask,
    problem::Fault,
    store::{
        NO_REVISION,
        changes::{Entry, Following, Found, What},
        request::{Listed, Listing, Page, Request},
        statements::{COLUMN_COUNT, COLUMNS},
    },
    task::{Description, Task, TaskId, TaskStatus, Timestamp, Title},
};

/// Serves requests that read, all in one snapshot.
pub(super) fn read(connection: &mut Connection, requests: Vec<Request>) {
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
                let told = found.map_err(fault).and_then(|found| found.tell(&follow.work));
                follow.answer(told);
            }
            other => other.fail(Fault::defect("it does not read")),
        }
    }
    // Nothing has been written. If it can't be ended, the connection is given up.
    let _ = connection.execute_batch("commit");
}

pub(super) fn find(on: &Connection, owner: &Owner, id: TaskId) -> Result<Option<Task>, Error> {
    let mut statement = on.prepare_cached(&format!("select {COLUMNS} from tasks where user_id = ?1 and id = ?2"))?;
    statement.query_row(params![owner.id(), id.0], task).optional()
}

fn list_tasks(on: &Connection, owner: &Owner, listing: &Listing) -> Result<Listed, Error> {
    let revision = on
        .prepare_cached("select revision from users where id = ?1")?
        .query_row([owner.id()], |row| row.get(0))
        .optional()?
        .unwrap_or(NO_REVISION);
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

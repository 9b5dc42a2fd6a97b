//! What goes to the database and comes from it: columns of a set as arrays, and rows.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{
    Row,
    postgres::{PgArguments, PgRow},
};

use super::{Failed, undecodable};
use crate::task::{Description, Task, TaskId, Title};

/// The place in its set of the request that a row is for.
pub(super) fn place(row: &PgRow, count: usize) -> Result<usize, Failed> {
    let n: i64 = column_of(row, 0)?;
    usize::try_from(n - 1).ok().filter(|n| *n < count).ok_or_else(|| undecodable("a row is for no request"))
}

/// The task whose columns begin at `from`.
pub(super) fn task(row: &PgRow, from: usize) -> Result<Task, Failed> {
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

pub(super) fn column_of<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> Result<T, Failed> {
    row.try_get(at).map_err(|error| Failed::Broken(Arc::new(error)))
}

pub(super) fn column<'s, S, T>(set: &'s [&'s S], of: impl Fn(&'s S) -> T) -> Vec<T> {
    set.iter().map(|one| of(one)).collect()
}

pub(super) fn arguments(add: impl FnOnce(&mut PgArguments) -> Result<(), sqlx::error::BoxDynError>) -> PgArguments {
    let mut arguments = PgArguments::default();
    add(&mut arguments).expect("arrays of plain values can be written");
    arguments
}

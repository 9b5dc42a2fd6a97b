//! The database schema, one file per step.
//!
//! A step that has been released is never edited: databases out there remember its name, not its content. To change the
//! schema, add a file, list it last in [`Migrator`], and let the entities in the server's `store` follow.

use sea_orm_migration::{prelude::*, schema::string_len, sea_orm::DbBackend};

mod m20261121_000001_users_and_tasks;
mod m20261121_000002_idempotency_keys;
mod m20261125_000003_revisions;
mod m20261126_000004_changes;
mod m20261126_000005_blocks;

/// Every step, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261121_000001_users_and_tasks::Migration),
            Box::new(m20261121_000002_idempotency_keys::Migration),
            Box::new(m20261125_000003_revisions::Migration),
            Box::new(m20261126_000004_changes::Migration),
            Box::new(m20261126_000005_blocks::Migration),
        ]
    }
}

/// The tables that a step makes, and that go when it is taken back.
#[must_use]
pub fn tables_of(step: &str) -> &'static [&'static str] {
    match step {
        "m20261121_000001_users_and_tasks" => &["tasks", "users"],
        "m20261121_000002_idempotency_keys" => &["idempotency_keys"],
        "m20261126_000004_changes" => &["deleted_tasks"],
        _ => &[],
    }
}

/// What else goes with a step when it is taken back and can't be made anew: what it is, and which rows have it.
#[must_use]
pub fn values_of(step: &str) -> Option<(&'static str, &'static str)> {
    (step == "m20261126_000005_blocks").then_some(("blocks of users", "users where tokens_from is not null"))
}

/// Text of up to 255 characters that somebody else has chosen, compared byte by byte: a user's id, a key.
fn byte_string(name: impl IntoIden, backend: DbBackend) -> ColumnDef {
    let mut column = string_len(name, 255);
    if backend == DbBackend::Postgres {
        // Without it the index would be kept in the order of the database's language, at a price for each comparison.
        column.extra(r#"COLLATE "C""#);
    }
    column
}

//! The database schema, one file per step.
//!
//! A step that has been released is never edited: databases out there remember its name, not its content. To change the
//! schema, add a file, list it last in [`Migrator`], and let the entities in the server's `store` follow.

use sea_orm_migration::prelude::*;

mod m20261121_000001_users_and_tasks;

/// Every step, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261121_000001_users_and_tasks::Migration)]
    }
}

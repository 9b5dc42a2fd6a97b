//! A revision for each owner: it rises with every change of the owner's tasks.

use std::time::{SystemTime, UNIX_EPOCH};

use sea_orm_migration::{prelude::*, schema::big_integer};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Users {
    Table,
}

#[derive(DeriveIden)]
enum Tasks {
    Table,
}

#[derive(DeriveIden)]
struct Revision;

#[async_trait::async_trait]
#[allow(
    clippy::disallowed_methods,
    reason = "the program's clock is not in sight here, and any number that grows will do"
)]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // With defaults, which neither database writes to each row. An owner's is the time, in microseconds: were this taken
        // back and applied again, no revision would come again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now: i64 = now.as_micros().try_into().unwrap_or_default();
        let mut users = Table::alter();
        users.table(Users::Table).add_column(big_integer(Revision).default(now));
        manager.alter_table(users).await?;
        let mut tasks = Table::alter();
        tasks.table(Tasks::Table).add_column(big_integer(Revision).default(0));
        manager.alter_table(tasks).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tasks = Table::alter();
        tasks.table(Tasks::Table).drop_column(Revision);
        manager.alter_table(tasks).await?;
        let mut users = Table::alter();
        users.table(Users::Table).drop_column(Revision);
        manager.alter_table(users).await
    }
}

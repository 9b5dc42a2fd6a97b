//! What the feed of changes is read from: tasks in the order of their changes, and what was deleted.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, timestamp_with_time_zone, uuid},
    sea_orm::DbBackend,
};

use crate::byte_string;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Users {
    Table,
    Id,
    Revision,
    SweptRevision,
}

#[derive(DeriveIden)]
enum Tasks {
    Table,
    UserId,
    Revision,
    Id,
}

#[derive(DeriveIden)]
enum DeletedTasks {
    Table,
    UserId,
    Revision,
    Id,
    DeletedAt,
}

const CHANGES: &str = "tasks_changes";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let mut changes = Index::create();
        changes.name(CHANGES).table(Tasks::Table).col(Tasks::UserId).col(Tasks::Revision).col(Tasks::Id);
        manager.create_index(changes).await?;

        let mut deleted = Table::create();
        deleted
            .table(DeletedTasks::Table)
            .col(byte_string(DeletedTasks::UserId, backend))
            .col(big_integer(DeletedTasks::Revision))
            .col(uuid(DeletedTasks::Id))
            .col(timestamp_with_time_zone(DeletedTasks::DeletedAt))
            // In the order of the feed. No task is deleted twice at one revision.
            .primary_key(
                Index::create()
                    .name("deleted_tasks_pkey")
                    .col(DeletedTasks::UserId)
                    .col(DeletedTasks::Revision)
                    .col(DeletedTasks::Id),
            )
            .foreign_key(
                ForeignKey::create()
                    .name("deleted_tasks_user_id_fkey")
                    .from(DeletedTasks::Table, DeletedTasks::UserId)
                    .to(Users::Table, Users::Id)
                    .on_delete(ForeignKeyAction::Cascade),
            );
        if backend == DbBackend::Sqlite {
            deleted.extra("WITHOUT ROWID");
        }
        manager.create_table(deleted).await?;

        // For the removal of the old ones.
        let mut age = Index::create();
        age.name("deleted_tasks_deleted_at").table(DeletedTasks::Table).col(DeletedTasks::DeletedAt);
        manager.create_index(age).await?;

        // Last, because it keeps everybody waiting, and the index takes its time.
        let mut users = Table::alter();
        users.table(Users::Table).add_column(big_integer(Users::SweptRevision).default(0));
        manager.alter_table(users).await?;
        // What was deleted before is not known, also if this was taken back and is applied again.
        let mut swept = Query::update();
        swept.table(Users::Table).value(Users::SweptRevision, Expr::col(Users::Revision));
        manager.execute(swept).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(DeletedTasks::Table).take()).await?;
        let mut changes = Index::drop();
        changes.name(CHANGES).table(Tasks::Table);
        manager.drop_index(changes).await?;
        let mut users = Table::alter();
        users.table(Users::Table).drop_column(Users::SweptRevision);
        manager.alter_table(users).await
    }
}

//! Users, who exist from their first task on, and their tasks.

use sea_orm_migration::{
    prelude::*,
    schema::{integer, string_len, string_len_null, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid},
    sea_orm::DbBackend,
};

use crate::byte_string;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Users {
    Table,
    Id,
}

#[derive(DeriveIden)]
enum Tasks {
    Table,
    UserId,
    Id,
    Title,
    Description,
    CompletedAt,
    CreatedAt,
    UpdatedAt,
    Version,
}

const PENDING: &str = "tasks_pending";
const COMPLETED: &str = "tasks_completed";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();

        let mut users = Table::create();
        users.table(Users::Table).col(byte_string(Users::Id, backend).primary_key());
        manager.create_table(users).await?;

        let mut tasks = Table::create();
        tasks
            .table(Tasks::Table)
            .col(byte_string(Tasks::UserId, backend))
            .col(uuid(Tasks::Id))
            .col(string_len(Tasks::Title, 200))
            .col(string_len_null(Tasks::Description, 1000))
            .col(timestamp_with_time_zone_null(Tasks::CompletedAt))
            .col(timestamp_with_time_zone(Tasks::CreatedAt))
            .col(timestamp_with_time_zone(Tasks::UpdatedAt))
            .col(integer(Tasks::Version))
            // The owner comes first: the key then serves the list, which is one owner's tasks in the order of their ids.
            .primary_key(Index::create().name("tasks_pkey").col(Tasks::UserId).col(Tasks::Id))
            .foreign_key(
                ForeignKey::create()
                    .name("tasks_user_id_fkey")
                    .from(Tasks::Table, Tasks::UserId)
                    .to(Users::Table, Users::Id)
                    .on_delete(ForeignKeyAction::Cascade),
            );
        if backend == DbBackend::Sqlite {
            // Keeps the rows themselves in the order of the key, so that one owner's tasks lie side by side.
            tasks.extra("WITHOUT ROWID");
        }
        manager.create_table(tasks).await?;

        for (name, of_its_status) in [
            (PENDING, Expr::col(Tasks::CompletedAt).is_null()),
            (COMPLETED, Expr::col(Tasks::CompletedAt).is_not_null()),
        ] {
            let mut index = Index::create();
            index.name(name).table(Tasks::Table).col(Tasks::UserId).col(Tasks::Id).and_where(of_its_status);
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Tasks::Table).take()).await?;
        manager.drop_table(Table::drop().table(Users::Table).take()).await
    }
}

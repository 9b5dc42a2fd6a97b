//! The answers that a repeated request is given again.

use sea_orm_migration::{
    prelude::*,
    schema::{blob, text, timestamp_with_time_zone},
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
enum IdempotencyKeys {
    Table,
    UserId,
    Key,
    Fingerprint,
    Answer,
    CreatedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let mut keys = Table::create();
        keys.table(IdempotencyKeys::Table)
            .col(byte_string(IdempotencyKeys::UserId, backend))
            .col(byte_string(IdempotencyKeys::Key, backend))
            .col(blob(IdempotencyKeys::Fingerprint))
            .col(text(IdempotencyKeys::Answer))
            .col(timestamp_with_time_zone(IdempotencyKeys::CreatedAt))
            // The owner comes first: two users' keys never meet.
            .primary_key(
                Index::create().name("idempotency_keys_pkey").col(IdempotencyKeys::UserId).col(IdempotencyKeys::Key),
            )
            // An answer holds what a user wrote, so it goes with the user.
            .foreign_key(
                ForeignKey::create()
                    .name("idempotency_keys_user_id_fkey")
                    .from(IdempotencyKeys::Table, IdempotencyKeys::UserId)
                    .to(Users::Table, Users::Id)
                    .on_delete(ForeignKeyAction::Cascade),
            );
        if backend == DbBackend::Sqlite {
            keys.extra("WITHOUT ROWID");
        }
        manager.create_table(keys).await?;

        // For the removal of the old ones.
        let mut age = Index::create();
        age.name("idempotency_keys_created_at").table(IdempotencyKeys::Table).col(IdempotencyKeys::CreatedAt);
        manager.create_index(age).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(IdempotencyKeys::Table).take()).await
    }
}

//! A user's block: the moment before which tokens must not have been issued.

use sea_orm_migration::{prelude::*, schema::big_integer_null, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Users {
    Table,
    Id,
    TokensFrom,
}

const BLOCKED: &str = "users_blocked";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // In seconds since 1970, as a token's `iat`, which it is compared with. There is none for nearly everybody.
        let mut users = Table::alter();
        users.table(Users::Table).add_column(big_integer_null(Users::TokensFrom));
        manager.alter_table(users).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            // For requests that need nothing else of their users: it is nearly always empty, so to look there costs next to nothing.
            let mut blocked = Index::create();
            let is_there = Expr::col(Users::TokensFrom).is_not_null();
            blocked.name(BLOCKED).table(Users::Table).col(Users::Id).and_where(is_there);
            manager.create_index(blocked).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            let mut blocked = Index::drop();
            blocked.name(BLOCKED).table(Users::Table);
            manager.drop_index(blocked).await?;
        }
        let mut users = Table::alter();
        users.table(Users::Table).drop_column(Users::TokensFrom);
        manager.alter_table(users).await
    }
}

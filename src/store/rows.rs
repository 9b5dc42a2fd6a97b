//! The tables, as SeaORM's entities, which are private to this file.
//!
//! ```compile_fail,E0603
//! // Not outside this file, not even in the rest of the store.
//! use taskpact::store::rows::tasks::Entity;
//! ```
//!
//! Requests are served by statements on sets, each row of which names its owner: `statements.rs`. What has no owner stands in
//! `unowned`, and what the operator has done in `person`, with the reasons. The suite compares [`tables`] with those that the migrations make.

use sea_orm::{DbBackend, Schema};

/// The tables as this file takes them to be, as statements that would make them.
#[must_use]
pub fn tables(backend: DbBackend) -> Vec<String> {
    let schema = Schema::new(backend);
    let tables = [
        schema.create_table_from_entity(users::Entity),
        schema.create_table_from_entity(tasks::Entity),
        schema.create_table_from_entity(idempotency_keys::Entity),
        schema.create_table_from_entity(deleted_tasks::Entity),
    ];
    tables.iter().map(|table| backend.build(table).to_string()).collect()
}

/// The statements that belong to no owner. None gives out what a user wrote.
pub(super) mod unowned {
    use chrono::{DateTime, TimeDelta, Utc};
    use sea_orm::{
        DbBackend, DeleteMany, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
        sea_query::Expr,
    };

    use super::{
        deleted_tasks::{self, Column as DeletedColumn},
        idempotency_keys::{self, Column as KeyColumn},
        tasks, users,
    };
    use crate::clock::Clock;

    /// The longest past of the deletions from before this time: whose it is.
    pub(in crate::store) fn oldest_deletion(before: DateTime<Utc>) -> Select<deleted_tasks::Entity> {
        let old = deleted_tasks::Entity::find().filter(Expr::col(DeletedColumn::DeletedAt).lt(before));
        old.order_by_asc(DeletedColumn::DeletedAt).limit(1)
    }

    /// Asks every table for nothing: readiness is about the database, not about anybody's rows.
    pub(in crate::store) fn probe() -> Select<tasks::Entity> {
        let keys = idempotency_keys::Entity::find().into_query();
        let deleted = deleted_tasks::Entity::find().into_query();
        let users = users::Entity::find().into_query();
        let rows = tasks::Entity::find().filter(Expr::val(false)).filter(Expr::exists(keys));
        rows.filter(Expr::exists(users)).filter(Expr::exists(deleted))
    }

    /// Deletes up to `count` of the keys that are older than `age`, whosever they are: they expire alike. The database's clock
    /// decides, which has also said when they were made; a SQLite database has this machine's.
    pub(in crate::store) fn delete_old_keys(
        backend: DbBackend,
        age: TimeDelta,
        count: u64,
    ) -> DeleteMany<idempotency_keys::Entity> {
        let limit = match backend {
            DbBackend::Postgres => Expr::cust(format!("now() - interval '{} seconds'", age.num_seconds())),
            _ => Expr::val(DateTime::<Utc>::from(Clock.now()) - age),
        };
        let old = idempotency_keys::Entity::find()
            .select_only()
            .columns([KeyColumn::UserId, KeyColumn::Key])
            .filter(Expr::col(KeyColumn::CreatedAt).lt(limit))
            .order_by_asc(KeyColumn::CreatedAt)
            // Without locks: engines that spread rows over machines have none for this. Who deletes the same waits, and finds
            // nothing left.
            .limit(count)
            .into_query();
        let key = Expr::tuple([Expr::col(KeyColumn::UserId), Expr::col(KeyColumn::Key)]);
        idempotency_keys::Entity::delete_many().filter(key.in_subquery(old))
    }
}

/// The statements about one user that only the operator has run, by name: `person.rs`.
pub(super) mod person {
    use chrono::{DateTime, Utc};
    use sea_orm::{
        ActiveValue::Set,
        ColumnTrait, DeleteMany, EntityTrait, ExprTrait, Insert, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
        Select, UpdateMany,
        sea_query::{Expr, OnConflict},
    };
    use uuid::Uuid;

    use super::{
        deleted_tasks::{self, Column as DeletedColumn},
        idempotency_keys::{self, Column as KeyColumn},
        tasks::{self, Column as TaskColumn},
        users::{self, Column as UserColumn},
    };
    use crate::task::{Description, Task, TaskId, Title};

    pub(in crate::store) fn user(id: &str) -> Select<users::Entity> {
        users::Entity::find().filter(UserColumn::Id.eq(id))
    }

    pub(in crate::store) fn tasks(user_id: &str) -> Select<tasks::Entity> {
        tasks::Entity::find().filter(TaskColumn::UserId.eq(user_id))
    }

    pub(in crate::store) fn keys(user_id: &str) -> Select<idempotency_keys::Entity> {
        idempotency_keys::Entity::find().filter(KeyColumn::UserId.eq(user_id))
    }

    pub(in crate::store) fn tasks_after(user_id: &str, after: Option<Uuid>, count: u64) -> Select<tasks::Entity> {
        let all = tasks(user_id).order_by_asc(TaskColumn::Id).limit(count);
        match after {
            Some(id) => all.filter(TaskColumn::Id.gt(id)),
            None => all,
        }
    }

    pub(in crate::store) fn deletions(user_id: &str) -> Select<deleted_tasks::Entity> {
        deleted_tasks::Entity::find().filter(DeletedColumn::UserId.eq(user_id))
    }

    /// Raises the revision. What is deleted from then on need not be remembered: whoever follows the changes starts over.
    pub(in crate::store) fn next_revision(user_id: &str) -> UpdateMany<users::Entity> {
        let next = || Expr::col(UserColumn::Revision).add(1);
        let user = users::Entity::update_many().filter(UserColumn::Id.eq(user_id));
        user.col_expr(UserColumn::Revision, next()).col_expr(UserColumn::SweptRevision, next())
    }

    /// The deletions from before this time, the oldest first.
    pub(in crate::store) fn old_deletions(
        user_id: &str,
        before: DateTime<Utc>,
        count: u64,
    ) -> Select<deleted_tasks::Entity> {
        let old = deletions(user_id).filter(DeletedColumn::DeletedAt.lt(before));
        old.order_by_asc(DeletedColumn::Revision).limit(count)
    }

    /// Says that deletions up to this revision may be forgotten.
    pub(in crate::store) fn swept(user_id: &str, revision: i64) -> UpdateMany<users::Entity> {
        let user = users::Entity::update_many().filter(UserColumn::Id.eq(user_id));
        user.col_expr(UserColumn::SweptRevision, Expr::val(revision)).filter(UserColumn::SweptRevision.lt(revision))
    }

    /// Forgets deletions up to this revision.
    pub(in crate::store) fn forget_deletions(user_id: &str, revision: i64) -> DeleteMany<deleted_tasks::Entity> {
        let mine = deleted_tasks::Entity::delete_many().filter(DeletedColumn::UserId.eq(user_id));
        mine.filter(DeletedColumn::Revision.lte(revision))
    }

    pub(in crate::store) fn delete_tasks(user_id: &str, count: u64) -> DeleteMany<tasks::Entity> {
        let some = tasks(user_id).select_only().column(TaskColumn::Id).limit(count).into_query();
        tasks::Entity::delete_many().filter(TaskColumn::UserId.eq(user_id)).filter(TaskColumn::Id.in_subquery(some))
    }

    pub(in crate::store) fn delete_keys(user_id: &str, count: u64) -> DeleteMany<idempotency_keys::Entity> {
        let some = keys(user_id).select_only().column(KeyColumn::Key).limit(count).into_query();
        let mine = idempotency_keys::Entity::delete_many().filter(KeyColumn::UserId.eq(user_id));
        mine.filter(KeyColumn::Key.in_subquery(some))
    }

    pub(in crate::store) fn delete_deletions(user_id: &str, count: u64) -> DeleteMany<deleted_tasks::Entity> {
        let some = deletions(user_id).select_only().column(DeletedColumn::Revision).limit(count).into_query();
        let mine = deleted_tasks::Entity::delete_many().filter(DeletedColumn::UserId.eq(user_id));
        mine.filter(DeletedColumn::Revision.in_subquery(some))
    }

    /// Deletes a user who is not blocked. One who is stays: nothing else would keep them from coming back.
    pub(in crate::store) fn delete_user(id: &str) -> DeleteMany<users::Entity> {
        users::Entity::delete_many().filter(UserColumn::Id.eq(id)).filter(UserColumn::TokensFrom.is_null())
    }

    /// Blocks a user, or lets a block last until `tokens_from` that would end before.
    /// `first_revision` is that of a user who is not known yet.
    pub(in crate::store) fn block(id: &str, tokens_from: i64, first_revision: i64) -> Insert<users::ActiveModel> {
        let known = Expr::col((users::Entity, UserColumn::TokensFrom));
        let later = Expr::case(known.clone().gt(tokens_from), known).finally(tokens_from);
        let user = users::ActiveModel {
            id: Set(id.to_owned()),
            revision: Set(first_revision),
            swept_revision: Set(first_revision),
            tokens_from: Set(Some(tokens_from)),
        };
        let if_known = OnConflict::column(UserColumn::Id).value(UserColumn::TokensFrom, later).to_owned();
        users::Entity::insert(user).on_conflict(if_known)
    }

    pub(in crate::store) fn unblock(id: &str) -> UpdateMany<users::Entity> {
        let none = Expr::val(None::<i64>);
        let blocked = users::Entity::update_many().filter(UserColumn::TokensFrom.is_not_null());
        blocked.col_expr(UserColumn::TokensFrom, none).filter(UserColumn::Id.eq(id))
    }

    impl From<tasks::Model> for Task {
        fn from(row: tasks::Model) -> Self {
            let tasks::Model {
                user_id,
                id,
                title,
                description,
                completed_at,
                created_at,
                updated_at,
                version,
                revision: _,
            } = row;
            Self {
                id: TaskId(id),
                user_id,
                title: Title(title),
                description: description.map(Description),
                completed: completed_at.is_some(),
                completed_at: completed_at.map(Into::into),
                created_at: created_at.into(),
                updated_at: updated_at.into(),
                version,
            }
        }
    }
}

/// Whoever has had a task, or is blocked.
mod users {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(in crate::store) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub id: String,
        /// Rises with every change of the user's tasks.
        #[sea_orm(default_value = 0)]
        pub revision: i64,
        /// The revision up to which deletions may be forgotten.
        #[sea_orm(default_value = 0)]
        pub swept_revision: i64,
        /// The user is blocked: tokens are refused that were issued before, in seconds since 1970, as a token's `iat`.
        pub tokens_from: Option<i64>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Their tasks.
mod tasks {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tasks")]
    pub(in crate::store) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub user_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        #[sea_orm(column_type = "String(StringLen::N(200))")]
        pub title: String,
        #[sea_orm(column_type = "String(StringLen::N(1000))")]
        pub description: Option<String>,
        /// A task is completed if and only if this is set.
        pub completed_at: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i32,
        /// The user's revision at the last change.
        #[sea_orm(default_value = 0)]
        pub revision: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The responses that their repeated requests are given again.
mod idempotency_keys {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency_keys")]
    pub(in crate::store) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub user_id: String,
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub key: String,
        /// Tells the request apart from another one with the same key.
        #[sea_orm(column_type = "Blob")]
        pub fingerprint: Vec<u8>,
        /// The task as it was answered, in JSON.
        #[sea_orm(column_type = "Text")]
        pub answer: String,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The tasks that were deleted, as long as that is remembered.
mod deleted_tasks {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "deleted_tasks")]
    pub(in crate::store) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub user_id: String,
        /// The user's revision at the deletion.
        #[sea_orm(primary_key, auto_increment = false)]
        pub revision: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub deleted_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use sea_orm::QueryTrait;

    use super::*;

    #[test]
    fn keys_expire_by_the_clock_that_has_said_when_they_were_made() {
        let text = unowned::delete_old_keys(DbBackend::Postgres, TimeDelta::hours(25), 10).build(DbBackend::Postgres);
        assert!(text.to_string().contains(r#""created_at" < (now() - interval '90000 seconds')"#), "{text}");
    }
}

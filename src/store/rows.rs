//! The tables. The entities are private to this file, which hands out only statements that are narrowed to one owner:
//! whoever forgets whose rows are meant has nothing to write the statement with.
//!
//! ```compile_fail,E0603
//! // Not outside this file, not even in the rest of the store.
//! use taskpact::store::rows::tasks::Entity;
//! ```
//!
//! What has no owner stands in `unowned`, with the reason. The suite compares [`tables`] with those that the migrations
//! make.

use sea_orm::{
    ActiveValue::Set, DbBackend, DeleteMany, EntityTrait, InsertMany, QueryFilter, Schema, Select, UpdateMany,
    sea_query::OnConflict,
};

use crate::{auth::Owner, task::TaskId};

pub(super) use idempotency_keys::{COLUMN as KEY, Column as KeyColumn};
pub(super) use tasks::{COLUMN as TASK, Column as TaskColumn, Model as TaskRow};

/// The tables as this file takes them to be, as statements that would make them.
#[must_use]
pub fn tables(backend: DbBackend) -> Vec<String> {
    let schema = Schema::new(backend);
    let tables = [
        schema.create_table_from_entity(users::Entity),
        schema.create_table_from_entity(tasks::Entity),
        schema.create_table_from_entity(idempotency_keys::Entity),
    ];
    tables.iter().map(|table| backend.build(table).to_string()).collect()
}

/// One owner's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'o> {
    owner: &'o Owner,
}

impl<'o> Rows<'o> {
    pub(super) fn of(owner: &'o Owner) -> Self {
        Self { owner }
    }

    /// The insertion of the owner's own row, which its other rows refer to. It may be there already.
    pub(super) fn insert_user(self) -> InsertMany<users::ActiveModel> {
        let row = users::ActiveModel { id: Set(self.owner.id().to_owned()) };
        users::Entity::insert_many([row]).on_conflict(OnConflict::column(users::Column::Id).do_nothing().to_owned())
    }

    pub(super) fn select_tasks(self) -> Select<tasks::Entity> {
        self.tasks(tasks::Entity::find())
    }

    pub(super) fn select_task(self, id: TaskId) -> Select<tasks::Entity> {
        self.task(tasks::Entity::find(), id)
    }

    pub(super) fn update_task(self, id: TaskId) -> UpdateMany<tasks::Entity> {
        self.task(tasks::Entity::update_many(), id)
    }

    pub(super) fn delete_task(self, id: TaskId) -> DeleteMany<tasks::Entity> {
        self.task(tasks::Entity::delete_many(), id)
    }

    /// The insertion of `row`, whoever it says it belongs to, as the owner's.
    // As one of many: the driver then reads to the end of the answer. To take one row and stop, as it does for a single
    // one, would leave unread whether SQLite could commit.
    pub(super) fn insert_task(self, row: TaskRow) -> InsertMany<tasks::ActiveModel> {
        let row = TaskRow { user_id: self.owner.id().to_owned(), ..row };
        let row: tasks::ActiveModel = row.into();
        tasks::Entity::insert_many([sea_orm::ActiveModelTrait::reset_all(row)])
    }

    pub(super) fn select_key(self, key: &str) -> Select<idempotency_keys::Entity> {
        self.key(idempotency_keys::Entity::find(), key)
    }

    pub(super) fn update_key(self, key: &str) -> UpdateMany<idempotency_keys::Entity> {
        self.key(idempotency_keys::Entity::update_many(), key)
    }

    /// The insertion of a key, unless the owner has it already.
    pub(super) fn insert_key(
        self,
        key: &str,
        fingerprint: &[u8],
        created_at: chrono::DateTime<chrono::Utc>,
    ) -> InsertMany<idempotency_keys::ActiveModel> {
        let row = idempotency_keys::ActiveModel {
            user_id: Set(self.owner.id().to_owned()),
            key: Set(key.to_owned()),
            fingerprint: Set(fingerprint.to_owned()),
            // Nobody sees it: it is set before the transaction ends.
            answer: Set(String::new()),
            created_at: Set(created_at),
        };
        idempotency_keys::Entity::insert_many([row])
            .on_conflict(OnConflict::columns([KeyColumn::UserId, KeyColumn::Key]).do_nothing().to_owned())
    }

    fn tasks<Q: QueryFilter>(self, statement: Q) -> Q {
        statement.filter(TASK.user_id.eq(self.owner.id()))
    }

    fn task<Q: QueryFilter>(self, statement: Q, id: TaskId) -> Q {
        self.tasks(statement).filter(TASK.id.eq(id.0))
    }

    fn key<Q: QueryFilter>(self, statement: Q, key: &str) -> Q {
        statement.filter(KEY.user_id.eq(self.owner.id())).filter(KEY.key.eq(key))
    }
}

/// The statements that belong to no owner. None gives out what a user wrote.
pub(super) mod unowned {
    use chrono::{DateTime, Utc};
    use sea_orm::{
        DeleteMany, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
        sea_query::{Expr, LockBehavior, LockType},
    };

    use super::{KEY, KeyColumn, idempotency_keys, tasks};

    /// Asks every table for nothing: readiness is about the database, not about anybody's rows.
    pub(in crate::store) fn probe() -> Select<tasks::Entity> {
        let keys = idempotency_keys::Entity::find().into_query();
        tasks::Entity::find().filter(Expr::val(false)).filter(Expr::exists(keys))
    }

    /// Deletes up to `count` of the keys made before `limit`, whosever they are: they expire alike.
    pub(in crate::store) fn delete_old_keys(limit: DateTime<Utc>, count: u64) -> DeleteMany<idempotency_keys::Entity> {
        let old = idempotency_keys::Entity::find()
            .select_only()
            .columns([KeyColumn::UserId, KeyColumn::Key])
            .filter(KEY.created_at.lt(limit))
            .order_by_asc(KeyColumn::CreatedAt)
            .limit(count)
            // Another server is deleting those.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_query();
        let key = Expr::tuple([Expr::col(KeyColumn::UserId), Expr::col(KeyColumn::Key)]);
        idempotency_keys::Entity::delete_many().filter(key.in_subquery(old))
    }
}

/// Whoever has had a task.
mod users {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(in crate::store) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "String(StringLen::N(255))")]
        pub id: String,
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

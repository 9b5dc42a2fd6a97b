//! The rows. The suite compares [`tables`] with those that the migrations make.

use sea_orm::{DbBackend, Schema};

/// The tables as this module believes them to be, as statements that would make them.
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

/// Whoever has had a task.
pub(super) mod users {
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
pub(super) mod tasks {
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

/// The answers that their repeated requests are given again.
pub(super) mod idempotency_keys {
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

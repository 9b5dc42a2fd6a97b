//! The rows. The suite compares [`tables`] with those that the migrations make.

use sea_orm::{DbBackend, Schema};

/// The tables as this module believes them to be, as statements that would make them.
#[must_use]
pub fn tables(backend: DbBackend) -> Vec<String> {
    let schema = Schema::new(backend);
    let tables = [schema.create_table_from_entity(users::Entity), schema.create_table_from_entity(tasks::Entity)];
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

//! The schema: up, down, up; and that the rows in the program are the tables in the database.

use sea_orm::DbBackend;
use serde_json::json;
use taskpact::store::Store;

use crate::{
    BACKEND,
    support::{Backend, Database, TestApp, config},
};

#[tokio::test]
async fn the_schema_goes_up_down_and_up() {
    let database = Database::new(BACKEND).await;
    let store = Store::new(&config(&database.url(), json!({})).database).unwrap();

    assert!(store.migration_status().await.unwrap().iter().all(|step| !step.applied));
    assert!(store.ready().await.is_err(), "there is no table yet");
    let steps = store.migrate_up().await.unwrap();
    assert!(!steps.is_empty());
    assert!(store.migration_status().await.unwrap().iter().all(|step| step.applied));
    store.ready().await.unwrap();
    assert!(store.migrate_up().await.unwrap().is_empty(), "there is nothing left to do");

    let mut undone = store.migrate_down(100).await.unwrap();
    undone.reverse();
    assert_eq!(undone, steps);
    assert!(store.ready().await.is_err(), "the tables are gone");
    assert_eq!(store.migrate_up().await.unwrap(), steps);
    store.ready().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_entities_are_the_tables() {
    let (migrated, expected) = (Database::new(BACKEND).await, Database::new(BACKEND).await);
    Store::new(&config(&migrated.url(), json!({})).database).unwrap().migrate_up().await.unwrap();
    let backend = match BACKEND {
        Backend::Sqlite => DbBackend::Sqlite,
        Backend::Postgres | Backend::PostgresByOwner => DbBackend::Postgres,
    };
    for statement in taskpact::store::rows::tables(backend) {
        expected.execute(&statement).await;
    }

    let (migrated, expected) = (columns(&migrated).await, columns(&expected).await);
    assert_eq!(migrated.len(), 22, "{migrated:#?}");
    assert_eq!(migrated, expected);
}

/// Each column of the tables: its name, its type, whether it may be null, and its place in the key.
async fn columns(database: &Database) -> Vec<String> {
    let query = match BACKEND {
        Backend::Sqlite => {
            r#"select concat_ws(' ', m.name, c.name, lower(c.type), c."notnull", c.pk) from sqlite_schema as m
               join pragma_table_info(m.name) as c where m.name in ('users', 'tasks', 'idempotency_keys', 'deleted_tasks') order by 1"#
        }
        Backend::Postgres | Backend::PostgresByOwner => {
            "select concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable,
                (select k.ordinal_position from information_schema.key_column_usage as k
                 join information_schema.table_constraints as t using (constraint_name, table_name)
                 where constraint_type = 'PRIMARY KEY' and table_name = c.table_name and column_name = c.column_name))
             from information_schema.columns as c where table_name in ('users', 'tasks', 'idempotency_keys', 'deleted_tasks') order by 1"
        }
    };
    database.query(query).await
}

#[tokio::test]
async fn the_tables_are_kept_as_the_statements_need_them() {
    let database = Database::new(BACKEND).await;
    Store::new(&config(&database.url(), json!({})).database).unwrap().migrate_up().await.unwrap();
    let (query, expected) = match BACKEND {
        Backend::Sqlite => (
            "select sql from sqlite_schema where name like '%tasks%' and sql is not null",
            [
                r#"PRIMARY KEY ("user_id", "id")"#,
                "ON DELETE CASCADE",
                "WITHOUT ROWID",
                r#"INDEX "tasks_pending" ON "tasks" ("user_id", "id") WHERE "completed_at" IS NULL"#,
                r#"INDEX "tasks_completed" ON "tasks" ("user_id", "id") WHERE "completed_at" IS NOT NULL"#,
            ],
        ),
        Backend::Postgres | Backend::PostgresByOwner => (
            "select indexdef from pg_indexes where tablename = 'tasks'
             union all select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'tasks'::regclass
             union all select column_name || ' ' || collation_name from information_schema.columns where table_name = 'tasks'
             and collation_name is not null",
            [
                "PRIMARY KEY (user_id, id)",
                "ON DELETE CASCADE",
                "user_id C",
                "INDEX tasks_pending ON public.tasks USING btree (user_id, id) WHERE (completed_at IS NULL)",
                "INDEX tasks_completed ON public.tasks USING btree (user_id, id) WHERE (completed_at IS NOT NULL)",
            ],
        ),
    };
    let found = database.query(query).await.join("\n");
    for part in expected {
        assert!(found.contains(part), "{part} is missing:\n{found}");
    }
}

#[tokio::test]
async fn a_server_without_its_tables_is_not_ready() {
    for table in ["tasks", "idempotency_keys"] {
        let app = TestApp::start(BACKEND).await;
        app.anybody().call(hyper::Method::GET, "/health/ready").send().await.is(200);
        app.database.execute(&format!("drop table {table}")).await;
        app.anybody().call(hyper::Method::GET, "/health/ready").send().await.is_problem(503, "unavailable");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_touched() {
    let app = TestApp::start(BACKEND).await;
    app.database.execute("insert into seaql_migrations values ('m29990101_000001_from_the_future', 0)").await;

    for outcome in [app.store.migrate_up().await, app.store.migrate_down(1).await] {
        assert!(outcome.unwrap_err().to_string().contains("m29990101_000001_from_the_future"));
    }
    app.new_user().create("It still serves").await;
}

#[tokio::test]
async fn erasing_a_user_erases_what_is_theirs() {
    let app = TestApp::start(BACKEND).await;
    let (ann, bob) = (app.user("ann"), app.user("bob"));
    for user in [&ann, &bob] {
        user.call(hyper::Method::POST, user.tasks()).json(json!({"title": "t"})).key("key").send().await.is(201);
    }

    let statement = match app.database {
        // Foreign keys are a matter of the connection there.
        Database::Sqlite(_) => "pragma foreign_keys = on; delete from users where id = 'ann'",
        Database::Postgres(_) => "delete from users where id = 'ann'",
    };
    app.database.execute(statement).await;

    assert_eq!(ann.list("").await.json(), json!([]));
    assert_eq!(bob.list("").await.json().as_array().unwrap().len(), 1);
    assert_eq!(app.database.query("select user_id from idempotency_keys").await, ["bob"]);
    ann.create("They may come back").await;
}

/// Other programs write times in other forms, and know nothing of revisions.
#[tokio::test]
async fn rows_that_were_written_by_sql_are_served() {
    let app = TestApp::start(BACKEND).await;
    let ann = app.user("ann");
    app.database.execute("insert into users (id) values ('ann')").await;
    let forms =
        ["2026-11-21 07:15:42+00:00", "2026-11-21T07:15:42Z", "2026-11-21T08:15:42.000+01:00", "2026-11-21 07:15:42Z"];
    for (n, at) in forms.iter().enumerate() {
        let id = match app.database {
            Database::Sqlite(_) => format!("x'019a7e3c91d47b528f4e2a6c0d1b3e5{n}'"),
            Database::Postgres(_) => format!("'019a7e3c91d47b528f4e2a6c0d1b3e5{n}'"),
        };
        let statement = format!(
            "insert into tasks (user_id, id, title, created_at, updated_at, completed_at, version) \
             values ('ann', {id}, 'By hand', '{at}', '{at}', '{at}', 1)"
        );
        app.database.execute(&statement).await;
    }

    let listed = ann.list("").await.is(200).json();
    assert_eq!(listed.as_array().unwrap().len(), forms.len());
    for task in listed.as_array().unwrap() {
        for field in ["created_at", "updated_at", "completed_at"] {
            assert_eq!(task[field], "2026-11-21T07:15:42.000000Z");
        }
        ann.get(super::id(task)).await.is(200);
        ann.toggle(super::id(task)).await.is(200);
    }
}

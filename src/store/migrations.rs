//! The schema's history: what has been applied, what is pending, and going forward and back.

use migration::Migrator;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use sea_orm_migration::{MigrationStatus, MigratorTrait};

use super::Store;

/// Taken while the schema is changed, so that of several processes that start at once one does it. Any number will do
/// that no other program uses on the same database: this is "taskpact" in ASCII.
const MIGRATION_LOCK: i64 = 0x7461_736b_7061_6374;

/// The tables, and the column by which an engine can spread them: whose rows they are.
const DISTRIBUTED: [(&str, &str); 3] = [("users", "id"), ("tasks", "user_id"), ("idempotency_keys", "user_id")];

/// One step of the schema's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// What is deleted when a step is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The name of the step.
    pub step: String,
    /// The tables, and what else can't be made anew, that go with it, and how many rows each has.
    pub tables: Vec<(&'static str, u64)>,
}

impl Store {
    /// Brings the schema up to date. Of several processes that try at once one does it and the others wait. If there is
    /// nothing to do, nothing is written.
    ///
    /// # Errors
    /// A step failed, and then none of them has been made; or the database is another program's, or has a step that this
    /// version doesn't know.
    pub async fn migrate_up(&self) -> Result<Vec<String>, DbErr> {
        if self.migration_status().await?.iter().all(|step| step.applied) {
            return Ok(Vec::new());
        }
        let change = self.begin_schema_change().await?;
        // Now that nobody else is at it.
        let steps = steps(&change).await?;
        let pending: Vec<_> = steps.iter().filter(|step| !step.applied).map(|step| step.name.clone()).collect();
        if pending.len() == steps.len() {
            for table in steps.iter().flat_map(|step| migration::tables_of(&step.name)) {
                if has_table(&change, table).await? {
                    return Err(DbErr::Migration(format!(
                        "it has a table `{table}` of another program: this server needs a database (or, on PostgreSQL, a \
                         schema) of its own"
                    )));
                }
            }
        }
        Migrator::up(&change, None).await?;
        change.commit().await?;
        Ok(pending)
    }

    /// Where an engine spreads rows over machines (Citus): the tables that it has not been told to spread though it has others, as
    /// statements that tell it.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn undistributed_tables(&self) -> Result<Vec<String>, DbErr> {
        if self.backend() != DbBackend::Postgres || !has_table(&self.upkeep.read, "pg_dist_partition").await? {
            return Ok(Vec::new());
        }
        let names: Vec<_> = DISTRIBUTED.iter().map(|(table, _)| format!("('{table}')")).collect();
        let ask = format!(
            "select t.name from (values {}) t (name) where not exists \
             (select 1 from pg_dist_partition p where p.logicalrelid = to_regclass(t.name))",
            names.join(", ")
        );
        let rows = self.upkeep.read.query_all_raw(Statement::from_string(DbBackend::Postgres, ask)).await?;
        let missing: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?;
        if missing.len() == DISTRIBUTED.len() {
            // It is there, and not used for this.
            return Ok(Vec::new());
        }
        let statement =
            |(table, column): &(&str, &str)| format!("select create_distributed_table('{table}', '{column}')");
        Ok(DISTRIBUTED.iter().filter(|(table, _)| missing.iter().any(|name| name == table)).map(statement).collect())
    }

    /// What would be deleted if the last `count` steps were taken back, the last one first. It changes nothing.
    ///
    /// # Errors
    /// The database did not answer, or has a step that this version doesn't know.
    pub async fn migration_losses(&self, count: u32) -> Result<Vec<Loss>, DbErr> {
        let steps = self.migration_status().await?;
        let mut losses = Vec::new();
        for step in steps.iter().rev().filter(|step| step.applied).take(count as usize) {
            let mut tables = Vec::new();
            let values = migration::values_of(&step.name);
            for (name, from) in migration::tables_of(&step.name).iter().map(|table| (*table, *table)).chain(values) {
                let count = Statement::from_string(self.backend(), format!("select count(*) as rows from {from}"));
                let row = self.upkeep.read.query_one_raw(count).await?;
                let rows = row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0))?.unsigned_abs();
                if name == from || rows > 0 {
                    tables.push((name, rows));
                }
            }
            losses.push(Loss { step: step.name.clone(), tables });
        }
        Ok(losses)
    }

    /// Takes back the last `count` steps, with the data that they hold.
    ///
    /// # Errors
    /// A step failed, and then none of them has been taken back; or the database has a step that this version doesn't
    /// know.
    pub async fn migrate_down(&self, count: u32) -> Result<Vec<String>, DbErr> {
        let change = self.begin_schema_change().await?;
        let steps = steps(&change).await?;
        let applied = steps.into_iter().rev().filter(|step| step.applied);
        let affected: Vec<_> = applied.take(count as usize).map(|step| step.name).collect();
        if !affected.is_empty() {
            Migrator::down(&change, Some(count)).await?;
            change.commit().await?;
        }
        Ok(affected)
    }

    /// The schema's history, oldest first. It changes nothing.
    ///
    /// # Errors
    /// The database did not answer, or has a step that this version doesn't know.
    pub async fn migration_status(&self) -> Result<Vec<Step>, DbErr> {
        steps(&self.upkeep.read).await
    }

    /// The schema's history as it is before anything has been applied.
    #[must_use]
    pub fn migrations() -> Vec<Step> {
        Migrator::migrations().iter().map(|step| Step { name: step.name().to_owned(), applied: false }).collect()
    }

    async fn begin_schema_change(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.begin().await?;
        if transaction.get_database_backend() == DbBackend::Postgres {
            // It is let go at the end of the transaction, which suits a transaction pooler too.
            transaction.execute_unprepared(&format!("select pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        }
        Ok(transaction)
    }
}

async fn has_table(on: &impl ConnectionTrait, name: &str) -> Result<bool, DbErr> {
    let ask = match on.get_database_backend() {
        DbBackend::Postgres => format!("select to_regclass('{name}') is not null"),
        _ => format!("select exists (select 1 from sqlite_master where type = 'table' and name = '{name}')"),
    };
    let row = on.query_one_raw(Statement::from_string(on.get_database_backend(), ask)).await?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
}

async fn steps(on: &impl ConnectionTrait) -> Result<Vec<Step>, DbErr> {
    if has_table(on, "seaql_migrations").await? {
        let names =
            Statement::from_string(on.get_database_backend(), "select version from seaql_migrations order by version");
        let rows = on.query_all_raw(names).await?;
        let names: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?;
        let known: Vec<_> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            return Err(DbErr::Migration(if names.iter().any(|name| known.contains(name)) {
                format!(
                    "a newer version of this server has migrated it (`{unknown}` is unknown here): run that version, or let \
                     it take that migration back first (`taskpact migrate down`)"
                )
            } else {
                format!(
                    "another program has migrated it (`{unknown}`): this server needs a database (or, on PostgreSQL, a \
                     schema) of its own"
                )
            }));
        }
    }
    let steps = Migrator::get_migration_with_status_read_only(on).await?;
    let step = |step: &sea_orm_migration::Migration| Step {
        name: step.name().to_owned(),
        applied: step.status() == MigrationStatus::Applied,
    };
    Ok(steps.iter().map(step).collect())
}

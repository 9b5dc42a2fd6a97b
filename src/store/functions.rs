//! What a set of one owner does by a function, where owners are on different machines ([`Sets::Owner`]).
//!
//! Citus hands a statement over to the machine of its owner as a whole, but not one that inserts into a table beside others: it would
//! copy what comes between to every machine, and commit in two phases. In a function each statement is handed over by itself, all
//! on one connection and in one transaction; it still is one round trip for this server, and one statement that the database makes
//! whole or not at all.
//!
//! The functions are the session's own (`pg_temp`), made when it begins: they are always those of this version, and need no step in
//! the schema's history. They do what `statements.rs` does in `create`, `change` and `remove`, and take and give the same.
//!
//! [`Sets::Owner`]: crate::config::Sets::Owner

use super::statements::{self, COLUMNS, SET_LOCK_TIMEOUT_MS, Waits, outcome};
use crate::config::Sets;

/// Makes the functions. Citus is told that they are none of its business.
pub(super) fn definitions() -> String {
    let of = |function: fn(Waits) -> String| [Waits::No, Waits::ForOwner].map(function).join(" ");
    format!("set citus.enable_ddl_propagation = off; {} {} {}", create(), of(change), of(remove))
}

pub(super) fn call_create(waits: Waits, has_keys: bool) -> String {
    let keys = if has_keys { "$10, $11, $12" } else { "null, null, null" };
    format!(
        "select * from pg_temp.taskpact_create($1, $2, $3, $4, $5, $6, $7, $8, $9, {keys}, {})",
        waits == Waits::ForOwner
    )
}

pub(super) fn call_change(waits: Waits) -> String {
    format!(
        "select * from pg_temp.{}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        name("change", waits)
    )
}

pub(super) fn call_remove(waits: Waits) -> String {
    format!("select * from pg_temp.{}($1, $2, $3, $4, $5, $6, $7)", name("remove", waits))
}

fn name(what: &str, waits: Waits) -> String {
    match waits {
        Waits::No => format!("taskpact_{what}"),
        Waits::ForOwner => format!("taskpact_{what}_patiently"),
    }
}

/// The parameters are those of `statements::create`, and whether it waits for the owner, who then is made if there is none.
fn create() -> String {
    format!(
        "create or replace function pg_temp.taskpact_create( \
           owners text[], int8[], issued int8[], text[], ids uuid[], titles text[], descriptions text[], \
           completions timestamptz[], times timestamptz[], keys text[], fingerprints bytea[], answers text[], waits bool \
         ) returns table ( \
           n int8, of_owner text, of_id uuid, stored_fingerprint bytea, stored_answer text, is_blocked bool \
         ) \
         language plpgsql as $body$ \
         declare \
           owner text := owners[1]; \
           changes int; \
           first int8 := (extract(epoch from clock_timestamp()) * 1000000)::int8; \
           last int8; \
         begin \
           if waits then \
             perform set_config('lock_timeout', '{patient}', true) from users u where u.id = owner; \
             insert into users as u (id, revision, swept_revision) values (owner, first, first) \
             on conflict (id) do update set revision = u.revision; \
           else \
             perform set_config('lock_timeout', '{SET_LOCK_TIMEOUT_MS}', true) \
             from users u where u.id = owner for no key update skip locked; \
             if not found then return; end if; \
           end if; \
           is_blocked := true; \
           for n in \
             select i.n from unnest(issued) with ordinality i (at, n) \
             join users u on u.id = owner and u.tokens_from > i.at \
           loop \
             ids[n] := null; \
             return next; \
           end loop; \
           is_blocked := false; \
           if keys is not null then \
             for n, stored_fingerprint, stored_answer in \
               select i.n, k.fingerprint, k.answer from unnest(keys) with ordinality i (key, n) \
               join idempotency_keys k on k.user_id = owner and k.key = i.key \
               where ids[i.n] is not null \
             loop \
               ids[n] := null; \
               return next; \
             end loop; \
           end if; \
           stored_fingerprint := null; \
           stored_answer := null; \
           of_owner := owner; \
           changes := cardinality(array_remove(ids, null)); \
           if changes = 0 then return; end if; \
           update users u set revision = u.revision + changes where u.id = owner returning u.revision into last; \
           for place in 1 .. cardinality(ids) loop \
             continue when ids[place] is null; \
             changes := changes - 1; \
             insert into tasks ({COLUMNS}, revision) values \
               (owner, ids[place], titles[place], descriptions[place], completions[place], times[place], \
                times[place], 1, last - changes); \
             if keys[place] is not null then \
               insert into idempotency_keys (user_id, key, fingerprint, answer, created_at) \
               values (owner, keys[place], fingerprints[place], answers[place], now()); \
             end if; \
             n := place; \
             of_id := ids[place]; \
             return next; \
           end loop; \
         end $body$;",
        patient = super::LOCK_TIMEOUT_MS,
    )
}

/// The parameters are those of `statements::change` with keys.
fn change(waits: Waits) -> String {
    format!(
        "create or replace function pg_temp.{name}( \
           owners text[], int8[], issued int8[], text[], ids uuid[], text[], text[], bool[], text[], int2[], bool[], \
           timestamptz[], keys text[], fingerprints bytea[] \
         ) returns table ( \
           n int8, outcome int2, user_id text, id uuid, title text, description text, completed_at timestamptz, \
           created_at timestamptz, updated_at timestamptz, version int4, fingerprint bytea, answer text \
         ) language plpgsql as $body$ \
         #variable_conflict use_column \n\
         declare \
           found record; \
           answered int8[] := '{{}}'; \
         begin \
           for found in \
             select i.n, k.fingerprint, k.answer from unnest(keys) with ordinality i (key, n) \
             join idempotency_keys k on k.user_id = owners[1] and k.key = i.key \
             where not exists (select 1 from users u where u.id = owners[1] and u.tokens_from > issued[i.n]) \
           loop \
             answered := answered || found.n; \
             ids[found.n] := null; \
             return query select found.n, {stored}::int2, null, null::uuid, null, null, null::timestamptz, \
               null::timestamptz, null::timestamptz, null::int4, found.fingerprint, found.answer; \
           end loop; \
           for found in {text} loop \
             continue when found.n = any (answered); \
             if found.outcome = {done} and keys[found.n] is not null then \
               insert into idempotency_keys (user_id, key, fingerprint, answer, created_at) \
               values (owners[1], keys[found.n], fingerprints[found.n], json_build_object( \
                 'id', found.id, 'user_id', found.user_id, 'title', found.title, \
                 'description', found.description, 'completed', found.completed_at is not null, \
                 'completed_at', found.completed_at, 'created_at', found.created_at, \
                 'updated_at', found.updated_at, 'version', found.version)::text, now()); \
             end if; \
             return query select found.n, found.outcome, found.user_id::text, found.id, found.title::text, \
               found.description::text, found.completed_at, found.created_at, found.updated_at, found.version, \
               null::bytea, null::text; \
           end loop; \
         end $body$;",
        name = name("change", waits),
        text = statements::change(waits, false, Sets::Owner),
        stored = outcome::STORED,
        done = outcome::DONE,
    )
}

/// The parameters are those of `statements::remove`.
fn remove(waits: Waits) -> String {
    format!(
        "create or replace function pg_temp.{name}( \
           owners text[], int8[], int8[], text[], uuid[], text[], timestamptz[] \
         ) returns table ( \
           n int8, outcome int2, user_id text, id uuid, title text, description text, completed_at timestamptz, \
           created_at timestamptz, updated_at timestamptz, version int4 \
         ) language plpgsql as $body$ \
         #variable_conflict use_column \n\
         declare \
           found record; \
         begin \
           for found in {text} loop \
             if found.outcome = {done} then \
               insert into deleted_tasks (user_id, revision, id, deleted_at) \
               values (owners[1], found.revision, found.id, found.at); \
             end if; \
             return query select found.n, found.outcome, found.user_id::text, found.id, found.title::text, \
               found.description::text, found.completed_at, found.created_at, found.updated_at, found.version; \
           end loop; \
         end $body$;",
        name = name("remove", waits),
        text = statements::remove_only(waits),
        done = outcome::DONE,
    )
}

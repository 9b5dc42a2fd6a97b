//! The statements on PostgreSQL. Each works on a set of requests, of which one is the smallest: the columns of the set come
//! as arrays, so that the size of a set is not in the text and a connection prepares each text once. They come through a
//! sub-select, which hides their sizes from the planner: it would else plan small sets anew each time, which takes longer than
//! to run them. What is only read is read one by one (`lateral … limit 1`), by its index: for a few dozen rows nothing is
//! quicker, and the planner would read a table of a thousand rows as a whole.
//!
//! Each row of a set has its owner, every row of a table is found by owner and id together, and every row that is given back
//! names both. `n` is the place of a request in its set.
//!
//! The statements that write lock the owners' rows first, in order of their ids, so that sets can't deadlock and revisions
//! are in the order of the commits. What somebody else has locked is left out (`skip locked`): it delays only its own
//! request, which is then tried alone, by a statement that waits for the owner. None waits for a task while it has the owner.
//! They begin with the same parameters: $1 owners, $2 places (the request's among those of its owner, from 1), $3 when the tokens
//! were issued, $4 the owners, each once and in order of their ids. A change's revision is its owner's before the set plus the
//! request's place, so that nothing has to be counted or sorted; one that changes nothing leaves a gap.
//!
//! Where a set has one owner only ([`Sets::Owner`]), each table is narrowed to that one by a constant as well: an engine that keeps
//! owners on different machines (Citus) finds the machine by it, and hands the statement over as a whole. It does not hand over a
//! statement that inserts into one table beside others; these are functions, in `functions.rs`.

use super::functions;
use crate::config::Sets;

/// The columns of a task, in the order in which they are read.
pub(super) const COLUMN_COUNT: usize = 8;
pub(super) const COLUMNS: &str = "user_id, id, title, description, completed_at, created_at, updated_at, version";

/// Whether a statement is for a set, or for a single request that waits for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Leaves out what is locked. It waits for nothing that takes long.
    No,
    /// Waits for the owner, for a while.
    ForOwner,
}

/// How long a statement for a set may wait for a lock that it can't leave out, in milliseconds: a key that somebody writes
/// by hand.
pub(super) const SET_LOCK_TIMEOUT_MS: u64 = 100;

/// The condition that narrows a table to the owner of the set, if it has only one; `column` is where the table has the owner.
fn mine(sets: Sets, column: &str) -> String {
    if sets == Sets::Owner { format!(" and {column} = ($1::text[])[1]") } else { String::new() }
}

/// Whether the token of a request `i` was issued before its owner's block ends, as far as the statement's snapshot shows. It is
/// asked where the owner is not locked, or has not been found, and that is seldom.
fn is_blocked(sets: Sets) -> String {
    format!("exists (select 1 from users w where w.id = i.user_id and w.tokens_from > i.issued{})", mine(sets, "w.id"))
}

/// The same of a locked owner `o`, as it is now. `is not true` where there is no block.
const IS_BLOCKED_NOW: &str = "o.tokens_from > i.issued";

fn columns(alias: &str) -> String {
    COLUMNS.split(", ").map(|column| format!("{alias}.{column}")).collect::<Vec<_>>().join(", ")
}

/// $1 owners, $2 ids.
///
/// A row for each task that there is, and one without a place for each owner who is blocked: from when on tokens are accepted. That
/// is looked up once for the set, in an index that has the blocked users only.
pub(super) fn get(sets: Sets) -> String {
    format!(
        "select i.n, {columns}, null::int8 \
         from unnest((select $1::text[]), (select $2::uuid[])) with ordinality as i (user_id, id, n) \
         cross join lateral (select {columns} from tasks t where t.user_id = i.user_id and t.id = i.id{my_tasks} limit 1) t \
         union all \
         select null, u.id, null, null, null, null, null, null, null, u.tokens_from from users u \
         where u.id = any ((select $1::text[])::text[]) and u.tokens_from is not null{my_users}",
        columns = columns("t"),
        my_tasks = mine(sets, "t.user_id"),
        my_users = mine(sets, "u.id"),
    )
}

/// $1 owners, $2 ids that the pages are below, $3 how many rows at most, $4 and $5 the revisions of the pages that are known.
///
/// The page, its revision and its owner's block are of one snapshot. Of a page that is known there is no more than these.
pub(super) fn list(of_status: &str, sets: Sets) -> String {
    format!(
        "select i.n, u.revision, u.tokens_from, {columns} \
         from unnest((select $1::text[]), (select $2::uuid[]), (select $3::int8[]), \
                     (select $4::int8[]), (select $5::int8[])) with ordinality \
              as i (user_id, below, most, callers, kept, n) \
         left join lateral (select u.revision, u.tokens_from from users u where u.id = i.user_id{my_user} limit 1) u on true \
         left join lateral ( \
           select {of_tasks} from tasks t \
           where t.user_id = i.user_id and t.id < i.below {of_status}{my_tasks} \
             and i.callers is distinct from u.revision and i.kept is distinct from u.revision \
           order by t.id desc limit i.most \
         ) p on true",
        columns = columns("p"),
        of_tasks = columns("t"),
        my_user = mine(sets, "u.id"),
        my_tasks = mine(sets, "t.user_id"),
    )
}

/// $1 owners, $2 and $3 the places (revision and id) that tasks are after, $4 and $5 those that deletions are after, $6 how many
/// rows at most, $7 the revision at which there is nothing new.
///
/// The entries, the revisions and the owner's block are of one snapshot. A row for each entry, or one without any: the owner's
/// revision, the one up to which deletions may be forgotten, from when on tokens are accepted; the task, or just its owner and its
/// id, its revision, and when it was deleted.
pub(super) fn changes(sets: Sets) -> String {
    let nulls = COLUMNS.split(", ").skip(2).map(|column| format!("null as {column}")).collect::<Vec<_>>().join(", ");
    format!(
        "select i.n, u.revision, u.swept_revision, u.tokens_from, {columns}, e.revision, e.deleted_at \
         from unnest((select $1::text[]), (select $2::int8[]), (select $3::uuid[]), (select $4::int8[]), \
                     (select $5::uuid[]), (select $6::int8[]), (select $7::int8[])) with ordinality \
              as i (user_id, after, after_id, deletions, deletions_id, most, known, n) \
         left join lateral ( \
           select u.revision, u.swept_revision, u.tokens_from from users u where u.id = i.user_id{my_user} limit 1 \
         ) u on true \
         left join lateral ( \
           (select {of_tasks}, t.revision, null::timestamptz as deleted_at from tasks t \
            where t.user_id = i.user_id{my_tasks} and (t.revision, t.id) > (i.after, i.after_id) \
              and i.known is distinct from u.revision \
            order by t.revision, t.id limit i.most) \
           union all \
           (select d.user_id, d.id, {nulls}, d.revision, d.deleted_at from deleted_tasks d \
            where d.user_id = i.user_id{my_deleted} and (d.revision, d.id) > (i.deletions, i.deletions_id) \
              and i.known is distinct from u.revision \
            order by d.revision, d.id limit i.most) \
           order by revision, id limit i.most \
         ) e on true",
        columns = columns("e"),
        of_tasks = columns("t"),
        my_user = mine(sets, "u.id"),
        my_tasks = mine(sets, "t.user_id"),
        my_deleted = mine(sets, "d.user_id"),
    )
}

/// The requests of a set: what is the same for all that write, and the columns that come after it, from $5 on.
fn input(columns: &[(&str, &str)]) -> String {
    let (mut arrays, mut names) = (String::new(), String::new());
    for (n, (name, sort)) in [("user_id", "text"), ("place", "int8"), ("issued", "int8")].iter().enumerate() {
        arrays += &format!("(select ${}::{sort}[]), ", n + 1);
        names += &format!("{name}, ");
    }
    for (n, (name, sort)) in columns.iter().enumerate() {
        arrays += &format!("(select ${}::{sort}[]), ", n + 5);
        names += &format!("{name}, ");
    }
    let arrays = arrays.trim_end_matches(", ");
    format!("input as materialized (select * from unnest({arrays}) with ordinality as i ({names}n))")
}

/// Sets how long the statement waits for a lock. It lasts until the end of the transaction, which is this statement: it needs no
/// session of its own.
fn limited(waits: Waits) -> String {
    let timeout = match waits {
        Waits::No => SET_LOCK_TIMEOUT_MS,
        Waits::ForOwner => super::LOCK_TIMEOUT_MS,
    };
    format!("(select set_config('lock_timeout', '{timeout}', true) as lock_timeout) limited")
}

/// The owners of the set, locked, in order of their ids. The look-up depends on the limit, so that the limit comes first.
fn locked_owners(waits: Waits, sets: Sets) -> String {
    let how = if waits == Waits::No { " skip locked" } else { "" };
    format!(
        "owner as materialized ( \
           select u.* from {limited}, unnest((select $4::text[])) o (id) cross join lateral ( \
             select u.id, u.revision, u.tokens_from from users u \
             where u.id = o.id{mine} and limited.lock_timeout is not null for no key update{how} \
           ) u \
         )",
        limited = limited(waits),
        mine = mine(sets, "u.id")
    )
}

/// Raises the revisions of the owners to the highest that a row of `changes` has.
fn bumped(changes: &str, sets: Sets) -> String {
    format!(
        "bumped as ( \
           update users u set revision = c.revision \
           from (select user_id, max(revision) as revision from {changes} group by user_id) c where u.id = c.user_id{} \
         )",
        mine(sets, "u.id")
    )
}

/// What has been answered already to requests with these keys. It is given again while somebody else has the owner locked.
fn stored(sets: Sets) -> String {
    format!(
        "stored as ( \
           select i.n, k.fingerprint, k.answer from input i \
           cross join lateral ( \
             select k.fingerprint, k.answer from idempotency_keys k where k.user_id = i.user_id and k.key = i.key limit 1 \
           ) k where not {} \
         )",
        is_blocked(sets)
    )
}

/// After the first four: $5 ids, $6 titles, $7 descriptions, $8 times of completion, $9 times; if some have keys, $10 keys,
/// $11 fingerprints, $12 answers.
///
/// A row for each request: the owner and the id of the task that was made; or the fingerprint and the answer that are stored;
/// or neither, if the request was left out; and whether that is because it is blocked.
pub(super) fn create(waits: Waits, has_keys: bool, sets: Sets) -> String {
    if sets == Sets::Owner {
        return functions::call_create(waits, has_keys);
    }
    let mut columns = vec![
        ("id", "uuid"),
        ("title", "text"),
        ("description", "text"),
        ("completed_at", "timestamptz"),
        ("at", "timestamptz"),
    ];
    let (stored, not_stored, keyed, of_stored, join_stored) = if has_keys {
        columns.extend([("key", "text"), ("fingerprint", "bytea"), ("answer", "text")]);
        (
            format!("{}, ", stored(sets)),
            "and not exists (select 1 from stored s where s.n = i.n)",
            ", keyed as ( \
               insert into idempotency_keys (user_id, key, fingerprint, answer, created_at) \
               select i.user_id, i.key, i.fingerprint, i.answer, now() \
               from input i join made m on m.user_id = i.user_id and m.id = i.id where i.key is not null \
             )",
            "s.fingerprint, s.answer",
            "left join stored s on s.n = i.n",
        )
    } else {
        (String::new(), "", "", "null::bytea, null::text", "")
    };
    let (owner, bumped) = match waits {
        Waits::No => (locked_owners(waits, sets), format!(", {}", bumped("made", sets))),
        // One request, whose owner may have no row yet. Its first revision is the time: whoever is erased and comes again
        // does not come to the same revisions again, and what was deleted before is not remembered.
        Waits::ForOwner => (
            format!(
                "owner as ( \
                   insert into users as u (id, revision, swept_revision) \
                   select i.user_id, c.time, c.time \
                   from input i, (select (extract(epoch from clock_timestamp()) * 1000000)::int8 as time) c, {} \
                   where not {} {not_stored} \
                   on conflict (id) do update set revision = u.revision + 1 \
                   where (u.tokens_from > ($3::int8[])[1]) is not true \
                   returning u.id, u.revision - 1 as revision, u.tokens_from \
                 )",
                limited(waits),
                is_blocked(sets),
            ),
            String::new(),
        ),
    };
    format!(
        "with {input}, {stored}{owner}, made as ( \
           insert into tasks ({COLUMNS}, revision) \
           select i.user_id, i.id, i.title, i.description, i.completed_at, i.at, i.at, 1, o.revision + i.place \
           from input i join owner o on o.id = i.user_id where ({IS_BLOCKED_NOW}) is not true {not_stored} \
           returning user_id, id, revision \
         ){bumped}{keyed} \
         select i.n, m.user_id, m.id, {of_stored}, m.id is null and {is_blocked} from input i \
         left join made m on m.user_id = i.user_id and m.id = i.id {join_stored}",
        input = input(&columns),
        is_blocked = is_blocked(sets),
    )
}

/// $1 owner, $2 id, $3 title, $4 description, $5 time of completion, $6 time, $7 when the token was issued.
///
/// As [`create`] for a single request without a key, which an idle server is asked for: half the work for the database. The same
/// row, or none if the request was left out; whether it is blocked, [`create`] then tells. It waits for no lock that it would have to limit.
pub(super) fn create_one() -> String {
    format!(
        "with owner as ( \
           select u.id from users u where u.id = $1 and (u.tokens_from > $7) is not true \
           for no key update of u skip locked \
         ), bumped as ( \
           update users u set revision = u.revision + 1 from owner o where u.id = o.id returning u.id, u.revision \
         ), made as ( \
           insert into tasks ({COLUMNS}, revision) select b.id, $2, $3, $4, $5, $6, $6, 1, b.revision from bumped b \
           returning user_id, id \
         ) \
         select 1::int8, m.user_id, m.id, null::bytea, null::text, false from made m"
    )
}

/// What became of a request to change or to delete a task.
pub(super) mod outcome {
    /// It was answered before: the fingerprint and the answer are given.
    pub(in crate::store) const STORED: i16 = 1;
    /// It was done.
    pub(in crate::store) const DONE: i16 = 2;
    /// The task is of another version: it is given as it is.
    pub(in crate::store) const MISMATCH: i16 = 3;
    /// The owner has no such task.
    pub(in crate::store) const MISSING: i16 = 4;
    /// Somebody else has locked the task or its owner.
    pub(in crate::store) const LOCKED: i16 = 5;
    /// Its token was issued before the owner's block ends. Nothing was done.
    pub(in crate::store) const BLOCKED: i16 = 6;
}

/// The tasks of the set that are to be changed, locked, whether they are of the expected version, and the revisions that they are to
/// have. What is locked already, or blocked, is left out. The look-up depends on the owner, so that the owner is locked first.
///
/// Citus refuses to read an array's text in the statement that changes, hence the first of these.
fn targets(columns_of_input: &str, condition: &str, sets: Sets) -> String {
    format!(
        "target as materialized ( \
           select i.n, i.expected is null or t.version = any (i.expected::int[]) as is_expected{columns_of_input}, \
                  o.revision + i.place as new_revision, t.* \
           from input i join owner o on o.id = i.user_id cross join lateral ( \
             select {} from tasks t where t.user_id = o.id and t.id = i.id{} for update skip locked \
           ) t where ({IS_BLOCKED_NOW}) is not true {condition} \
         )",
        columns("t"),
        mine(sets, "t.user_id")
    )
}

fn decided(done: &str, stored: &str, sets: Sets) -> String {
    use outcome::{BLOCKED, DONE, LOCKED, MISMATCH, MISSING, STORED};
    format!(
        "(case when {stored} then {STORED} when {done} then {DONE} when g.n is not null then {MISMATCH} \
          when {is_blocked} then {BLOCKED} \
          when not exists (select 1 from tasks x where x.user_id = i.user_id and x.id = i.id{my_tasks}) then {MISSING} \
          else {LOCKED} end)::int2",
        is_blocked = is_blocked(sets),
        my_tasks = mine(sets, "x.user_id"),
    )
}

/// After the first four: $5 ids, $6 expected versions (as arrays' texts; null for any), $7 titles, $8 whether the description is
/// set, $9 descriptions, $10 completions, $11 whether it always counts as a change, $12 times; if some have keys, $13 keys
/// and $14 fingerprints.
///
/// A row for each request: the [`outcome`], the task, the fingerprint and the answer.
pub(super) fn change(waits: Waits, has_keys: bool, sets: Sets) -> String {
    if has_keys && sets == Sets::Owner {
        return functions::call_change(waits);
    }
    let mut columns_of_input = vec![
        ("id", "uuid"),
        ("expected", "text"),
        ("new_title", "text"),
        ("describes", "bool"),
        ("new_description", "text"),
        ("completion", "int2"),
        ("always", "bool"),
        ("at", "timestamptz"),
    ];
    let (stored, not_stored, of_key, keyed, of_stored, join_stored, is_stored) = if has_keys {
        columns_of_input.extend([("key", "text"), ("fingerprint", "bytea")]);
        (
            format!("{}, ", stored(sets)),
            "and not exists (select 1 from stored s where s.n = i.n)",
            ", i.key, i.fingerprint",
            // The answer is read as JSON, so its form is free; the names are those of the published type.
            ", keyed as ( \
               insert into idempotency_keys (user_id, key, fingerprint, answer, created_at) \
               select c.user_id, c.key, c.fingerprint, json_build_object( \
                 'id', c.id, 'user_id', c.user_id, 'title', c.title, 'description', c.description, \
                 'completed', c.completed_at is not null, 'completed_at', c.completed_at, \
                 'created_at', c.created_at, 'updated_at', c.updated_at, 'version', c.version)::text, now() \
               from changed c where c.key is not null \
             )",
            "s.fingerprint, s.answer",
            "left join stored s on s.n = i.n",
            "s.n is not null",
        )
    } else {
        (String::new(), "", "", "", "null::bytea, null::text", "", "false")
    };
    let returned_key = if has_keys { ", m.key, m.fingerprint" } else { "" };
    let of_input = format!(
        ", i.new_title, i.describes, i.new_description, i.completion, i.at{of_key}, \
         i.always or (i.completion = 1 and t.completed_at is null) \
                  or (i.completion = 2 and t.completed_at is not null) as changes"
    );
    let of_task = COLUMNS
        .split(", ")
        .map(|column| format!("case when c.n is null then g.{column} else c.{column} end as {column}"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "with {input}, {owners}, {stored}{targets}, changed as ( \
           update tasks t set \
             title = coalesce(m.new_title, t.title), \
             description = case when m.describes then m.new_description else t.description end, \
             completed_at = case when m.completion = 0 then t.completed_at \
                                 when m.completion = 1 then coalesce(t.completed_at, greatest(m.at, t.created_at)) \
                                 when m.completion = 2 then null \
                                 else case when t.completed_at is null then greatest(m.at, t.created_at) end end, \
             updated_at = case when m.changes then greatest(t.updated_at, m.at) else t.updated_at end, \
             version = t.version + m.changes::int, \
             revision = case when m.changes then m.new_revision else t.revision end \
           from target m where t.user_id = m.user_id and t.id = m.id{my_tasks} and m.is_expected \
           returning m.n, m.changes, t.revision{returned_key}, {of_changed} \
         ), {bumped}{keyed} \
         select i.n, {outcome} as outcome, {of_task}, {of_stored} \
         from input i {join_stored} left join changed c on c.n = i.n left join target g on g.n = i.n",
        input = input(&columns_of_input),
        owners = locked_owners(waits, sets),
        targets = targets(&of_input, not_stored, sets),
        of_changed = columns("t"),
        bumped = bumped("changed where changes", sets),
        outcome = decided("c.n is not null", is_stored, sets),
        my_tasks = mine(sets, "t.user_id"),
    )
}

/// After the first four: $5 ids, $6 expected versions (as arrays' texts; null for any), $7 times.
///
/// A row for each request: the [`outcome`], and the task if it is of another version.
pub(super) fn remove(waits: Waits, sets: Sets) -> String {
    if sets == Sets::Owner {
        return functions::call_remove(waits);
    }
    remove_and(
        ", noted as ( \
           insert into deleted_tasks (user_id, revision, id, deleted_at) select user_id, revision, id, at from gone \
         )",
        "",
        waits,
        sets,
    )
}

/// The same, but for what is to be remembered of it: the function that does that is given the revision and the time.
pub(super) fn remove_only(waits: Waits) -> String {
    remove_and("", ", c.revision, i.at", waits, Sets::Owner)
}

fn remove_and(noted: &str, returned: &str, waits: Waits, sets: Sets) -> String {
    format!(
        "with {input}, {owners}, {targets}, gone as ( \
           delete from tasks t using target m \
           where t.user_id = m.user_id and t.id = m.id{my_tasks} and m.is_expected \
           returning m.n, m.user_id, m.id, m.new_revision as revision, m.at \
         ), {bumped}{noted} \
         select i.n, {outcome} as outcome, {of_target}{returned} \
         from input i left join gone c on c.n = i.n left join target g on g.n = i.n",
        input = input(&[("id", "uuid"), ("expected", "text"), ("at", "timestamptz")]),
        owners = locked_owners(waits, sets),
        targets = targets(", i.at", "", sets),
        bumped = bumped("gone", sets),
        outcome = decided("c.n is not null", "false", sets),
        of_target = columns("g"),
        my_tasks = mine(sets, "t.user_id"),
    )
}

-- What `create` asks the database for: a task, and the next revision of its owner. The id begins with the time, as those
-- of Taskpact do. The clients wait for each other here: all write for one owner, and each commit waits for the disk. Taskpact
-- commits those together that come together, so it can be faster than this.
with bumped as (
    update users set revision = revision + 1 where id = 'ann' returning id, revision
)
insert into tasks (user_id, id, title, description, completed_at, created_at, updated_at, version, revision)
select id,
       (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::int8), 12, '0')
        || substr(replace(gen_random_uuid()::text, '-', ''), 13))::uuid,
       'Water the plants', 'The ones on the balcony, too', null, now(), now(), 1, revision
from bumped
returning user_id, id;

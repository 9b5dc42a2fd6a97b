-- What `get` asks the database for: one task, by its owner and its id. compare.py makes bench_ids.
\set n random(1, 1000)
select user_id, id, title, description, completed_at, created_at, updated_at, version
from tasks
where user_id = 'ann' and id = (select id from bench_ids where n = :n);

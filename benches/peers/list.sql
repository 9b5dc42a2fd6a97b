-- What `list` asks the database for: the owner's revision and the newest 20 tasks, of one snapshot. The 21st tells whether
-- there are more. Taskpact asks for the revision only while it keeps the written page of it, so it can be faster than this.
select u.revision, t.*
from users u
left join lateral (
    select user_id, id, title, description, completed_at, created_at, updated_at, version
    from tasks where user_id = u.id order by id desc limit 21
) t on true
where u.id = 'ann';

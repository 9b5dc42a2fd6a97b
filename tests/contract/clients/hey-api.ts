// The round trip with @hey-api/openapi-ts and its fetch client.

import { createClient } from "./generated/hey-api/client";
import * as api from "./generated/hey-api";
import {
  assert, exactly, is, loser, present, refused, Same, TITLES, token, url, user_id,
  AnyProblem, Health, NewTask, Problem, Task, TaskCompletion, TaskUpdate, ValidationProblem,
} from "./journey";

is<Same<api.Task, Task>>();
is<Same<api.NewTask, NewTask>>();
is<Same<api.TaskUpdate, TaskUpdate>>();
is<Same<api.TaskCompletion, TaskCompletion>>();
is<Same<api.Problem, Problem>>();
is<Same<api.ValidationProblem, ValidationProblem>>();

const client = createClient({ baseUrl: url, auth: token });
const mine = { client, path: { user_id } };

const health = await api.getHealth({ client });
exactly<Health | undefined>()(health.data);
exactly<Problem | undefined>()(health.error);
assert.equal(health.data?.status, "ok");
const readiness = await api.getReadiness({ client });
exactly<Problem | undefined>()(readiness.error);
assert.equal(readiness.data?.status, "ok");

// Created, and once more by a client that did not hear the answer.
const ids: string[] = [];
for (const title of TITLES) {
  const { data, error, response } = await api.createTask({ ...mine, headers: { "Idempotency-Key": `"${title}"` }, body: { title } });
  exactly<Task | undefined>()(data);
  exactly<AnyProblem | undefined>()(error);
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("Idempotent-Replayed"), null);
  ids.unshift(present(data, "task").id);
}
const again = { ...mine, headers: { "Idempotency-Key": `"${TITLES[4]}"` } };
const replay = await api.createTask({ ...again, body: { title: "Sweep the stairs" } });
assert.equal(replay.response.headers.get("Idempotent-Replayed"), "true");
assert.equal(replay.data?.id, ids[0]);
const reuse = await api.createTask({ ...again, body: { title: "Sweep the yard" } });
refused(reuse.error, 422, "/problems/idempotency-key-reused");

// Page by page.
const seen: string[] = [];
let cursor: string | null = null;
do {
  const page: Awaited<ReturnType<typeof list>> = await list(cursor);
  exactly<Task[] | undefined>()(page.data);
  exactly<Problem | undefined>()(page.error);
  seen.push(...present(page.data, "page").map((task) => task.id));
  cursor = page.response.headers.get("Next-Cursor");
} while (cursor !== null);
assert.deepEqual(seen, ids);
function list(cursor: string | null) {
  return api.listTasks({ ...mine, query: { status: "all", limit: 2, ...(cursor === null ? {} : { cursor }) } });
}

// Read, and read again only if it has changed.
const one = { client, path: { user_id, task_id: present(ids[0], "id") } };
const read = await api.getTask(one);
exactly<Task | undefined>()(read.data);
exactly<Problem | undefined>()(read.error);
assert.equal(read.data?.description, null);
const tag = present(read.response.headers.get("ETag"), "ETag");
const unchanged = await api.getTask({ ...one, headers: { "If-None-Match": tag } });
assert.equal(unchanged.response.status, 304);

// Two write at once. One is told that it was late.
const write = (description: string) => api.updateTask({ ...one, headers: { "If-Match": tag }, body: { description } });
const racers = await Promise.all([write("Twice a week"), write("On Sundays")]);
const [{ data: written, error: refusal }] = racers;
exactly<Task | undefined>()(written);
exactly<AnyProblem | undefined>()(refusal);
const late = loser([{ ...racers[0], status: racers[0].response.status }, { ...racers[1], status: racers[1].response.status }]);
refused(late.error, 412, "/problems/version-mismatch");

// Completed, by a flip and by name.
const flipped = await api.toggleTaskCompletion(one);
exactly<Task | undefined>()(flipped.data);
exactly<AnyProblem | undefined>()(flipped.error);
assert.equal(typeof flipped.data?.completed_at, "string");
const set = await api.toggleTaskCompletion({ ...one, body: { completed: true } });
assert.equal(set.data?.version, flipped.data?.version);

// Deleted, and then it is gone.
const gone = await api.deleteTask(one);
assert.equal(gone.response.status, 204);
const missing = await api.deleteTask(one);
exactly<Problem | undefined>()(missing.error);
refused(missing.error, 404, "/problems/no-such-task");

// Refused.
const invalid = await api.createTask({ ...mine, body: { title: "" } });
refused(invalid.error, 422, "/problems/invalid-body");
assert.ok(invalid.error?.type === "/problems/invalid-body");
exactly<ValidationProblem>()(invalid.error);
assert.equal(invalid.error.errors[0]?.pointer, "/title");
const anonymous = await api.listTasks({ client: createClient({ baseUrl: url }), path: { user_id } });
refused(anonymous.error, 401, "/problems/unauthorized");
const stranger = await api.listTasks({ client, path: { user_id: "somebody else" } });
refused(stranger.error, 403, "/problems/forbidden");

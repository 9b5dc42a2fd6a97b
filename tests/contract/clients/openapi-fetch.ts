// The round trip with openapi-typescript and openapi-fetch.

import createClient from "openapi-fetch";
import type { components, paths } from "./generated/openapi-typescript";
import {
  assert, exactly, is, loser, present, refused, Same, TITLES, token, url, user_id,
  AnyProblem, Health, NewTask, Problem, Task, TaskCompletion, TaskUpdate, ValidationProblem,
} from "./journey";

type Schemas = components["schemas"];
is<Same<Schemas["Task"], Task>>();
is<Same<Schemas["NewTask"], NewTask>>();
is<Same<Schemas["TaskUpdate"], TaskUpdate>>();
is<Same<Schemas["TaskCompletion"], TaskCompletion>>();
is<Same<Schemas["Problem"], Problem>>();
is<Same<Schemas["ValidationProblem"], ValidationProblem>>();

const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const mine = { path: { user_id } };

const health = await api.GET("/health");
exactly<Health | undefined>()(health.data);
exactly<Problem | undefined>()(health.error);
assert.equal(health.data?.status, "ok");
const readiness = await api.GET("/health/ready");
exactly<Problem | undefined>()(readiness.error);
assert.equal(readiness.data?.status, "ok");

// Created, and once more by a client that did not hear the answer.
const ids: string[] = [];
for (const title of TITLES) {
  const { data, error, response } = await api.POST("/api/{user_id}/tasks", {
    params: { ...mine, header: { "Idempotency-Key": `"${title}"` } },
    body: { title },
  });
  exactly<Task | undefined>()(data);
  exactly<AnyProblem | undefined>()(error);
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("Idempotent-Replayed"), null);
  ids.unshift(present(data, "task").id);
}
const again = { ...mine, header: { "Idempotency-Key": `"${TITLES[4]}"` } };
const replay = await api.POST("/api/{user_id}/tasks", { params: again, body: { title: "Sweep the stairs" } });
assert.equal(replay.response.headers.get("Idempotent-Replayed"), "true");
assert.equal(replay.data?.id, ids[0]);
const reuse = await api.POST("/api/{user_id}/tasks", { params: again, body: { title: "Sweep the yard" } });
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
  return api.GET("/api/{user_id}/tasks", { params: { ...mine, query: { status: "all", limit: 2, ...(cursor === null ? {} : { cursor }) } } });
}

// Read, and read again only if it has changed.
const one = { path: { user_id, task_id: present(ids[0], "id") } };
const read = await api.GET("/api/{user_id}/tasks/{task_id}", { params: one });
exactly<Task | undefined>()(read.data);
exactly<Problem | undefined>()(read.error);
assert.equal(read.data?.description, null);
const tag = present(read.response.headers.get("ETag"), "ETag");
const unchanged = await api.GET("/api/{user_id}/tasks/{task_id}", { params: { ...one, header: { "If-None-Match": tag } } });
assert.equal(unchanged.response.status, 304);

// Two write at once. One is told that it was late.
const write = (description: string) =>
  api.PUT("/api/{user_id}/tasks/{task_id}", { params: { ...one, header: { "If-Match": tag } }, body: { description } });
const racers = await Promise.all([write("Twice a week"), write("On Sundays")]);
const [{ data: written, error: refusal }] = racers;
exactly<Task | undefined>()(written);
exactly<AnyProblem | undefined>()(refusal);
const late = loser([{ ...racers[0], status: racers[0].response.status }, { ...racers[1], status: racers[1].response.status }]);
refused(late.error, 412, "/problems/version-mismatch");

// Completed, by a flip and by name.
const flipped = await api.PATCH("/api/{user_id}/tasks/{task_id}/complete", { params: one });
exactly<Task | undefined>()(flipped.data);
exactly<AnyProblem | undefined>()(flipped.error);
assert.equal(typeof flipped.data?.completed_at, "string");
const set = await api.PATCH("/api/{user_id}/tasks/{task_id}/complete", { params: one, body: { completed: true } });
assert.equal(set.data?.version, flipped.data?.version);

// Deleted, and then it is gone.
const gone = await api.DELETE("/api/{user_id}/tasks/{task_id}", { params: one });
assert.equal(gone.response.status, 204);
const missing = await api.DELETE("/api/{user_id}/tasks/{task_id}", { params: one });
exactly<Problem | undefined>()(missing.error);
refused(missing.error, 404, "/problems/no-such-task");

// Refused.
const invalid = await api.POST("/api/{user_id}/tasks", { params: mine, body: { title: "" } });
refused(invalid.error, 422, "/problems/invalid-body");
assert.ok(invalid.error?.type === "/problems/invalid-body");
exactly<ValidationProblem>()(invalid.error);
assert.equal(invalid.error.errors[0]?.pointer, "/title");
const anonymous = await api.GET("/api/{user_id}/tasks", { params: mine, headers: { Authorization: null } });
refused(anonymous.error, 401, "/problems/unauthorized");
const stranger = await api.GET("/api/{user_id}/tasks", { params: { path: { user_id: "somebody else" } } });
refused(stranger.error, 403, "/problems/forbidden");

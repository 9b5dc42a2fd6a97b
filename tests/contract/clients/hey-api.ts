// The round trip with @hey-api/openapi-ts and its fetch client.

import { createClient } from "./generated/hey-api/client";
import * as api from "./generated/hey-api";
import {
  assert, Device, exactly, is, loser, ofAnotherKind, present, refused, Same, TITLES, token, url, user_id, words,
  AnyProblem, Changes, ChangesError, ChangesExpiredProblem, CompleteError, CreateError, DeleteError, Health, HealthError, ListError, NewTask, ReadError, ReadinessError, Task,
  TaskCompletion, TaskUpdate, UpdateError, VersionMismatchProblem, Violation,
} from "./journey";

is<Same<api.Task, Task>>();
is<Same<api.NewTask, NewTask>>();
is<Same<api.TaskUpdate, TaskUpdate>>();
is<Same<api.TaskCompletion, TaskCompletion>>();
is<Same<api.Changes, Changes>>();
is<Same<api.AnyProblem, AnyProblem>>();

const client = createClient({ baseUrl: url, auth: token });
const mine = { client, path: { user_id } };

const health = await api.getHealth({ client });
exactly<Health | undefined>()(health.data);
exactly<HealthError | undefined>()(health.error);
assert.equal(health.data?.status, "ok");
const readiness = await api.getReadiness({ client });
exactly<ReadinessError | undefined>()(readiness.error);
assert.equal(readiness.data?.status, "ok");

// Created, and once more by a client that did not hear the answer.
const ids: string[] = [];
for (const title of TITLES) {
  const { data, error, response } = await api.createTask({ ...mine, headers: { "Idempotency-Key": `"${title}"` }, body: { title } });
  exactly<Task | undefined>()(data);
  exactly<CreateError | undefined>()(error);
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
  exactly<ListError | undefined>()(page.error);
  seen.push(...present(page.data, "page").map((task) => task.id));
  cursor = page.response.headers.get("Next-Cursor");
} while (cursor !== null);
assert.deepEqual(seen, ids);
function list(cursor: string | null) {
  return api.listTasks({ ...mine, query: { status: "all", limit: 2, ...(cursor === null ? {} : { cursor }) } });
}

// What a device keeps, change by change.
const device = new Device();
const told = async () => {
  const { since } = device;
  const changes = await api.listChanges({ ...mine, query: { limit: 3, ...(since === undefined ? {} : { since }) } });
  exactly<Changes | undefined>()(changes.data);
  exactly<ChangesError | undefined>()(changes.error);
  return present(changes.data, "changes");
};
await device.follow(told);
assert.deepEqual(device.ids(), ids);

// Read, and read again only if it has changed.
const one = { client, path: { user_id, task_id: present(ids[0], "id") } };
const read = await api.getTask(one);
exactly<Task | undefined>()(read.data);
exactly<ReadError | undefined>()(read.error);
assert.equal(read.data?.description, null);
const tag = present(read.response.headers.get("ETag"), "ETag");
const unchanged = await api.getTask({ ...one, headers: { "If-None-Match": tag } });
assert.equal(unchanged.response.status, 304);

// Two write at once. One is told that it was late.
const write = (description: string) => api.updateTask({ ...one, headers: { "If-Match": tag }, body: { description } });
const racers = await Promise.all([write("Twice a week"), write("On Sundays")]);
const [{ data: written, error: refusal }] = racers;
exactly<Task | undefined>()(written);
exactly<UpdateError | undefined>()(refusal);
const late = loser([{ ...racers[0], status: racers[0].response.status }, { ...racers[1], status: racers[1].response.status }]);
refused(late.error, 412, "/problems/version-mismatch");
assert.ok(late.error?.type === "/problems/version-mismatch");
exactly<Task>()(late.error.current);
assert.deepEqual(late.error.current, (await api.getTask(one)).data);

// Every kind of refusal has its own fields, and none can be forgotten.
function afterwards(error: NonNullable<typeof refusal>): string {
  switch (error.type) {
    case "/problems/version-mismatch":
      return `It is version ${error.current.version} now.`;
    case "/problems/invalid-request":
      return error.errors.map((violation) => (exactly<Violation>()(violation), violation.detail)).join(", ");
    case "/problems/unauthorized":
    case "/problems/forbidden":
    case "/problems/no-such-task":
    case "/problems/malformed-body":
    case "/problems/request-timeout":
    case "/problems/body-too-large":
    case "/problems/unsupported-media-type":
    case "/problems/too-many-requests":
    case "/problems/internal":
    case "/problems/unavailable":
      // @ts-expect-error These have no task.
      error.current;
      return words(error);
    default:
      return ofAnotherKind(error).detail;
  }
}
assert.equal(afterwards(late.error), "It is version 2 now.");
function forgets(error: NonNullable<typeof refusal>): string {
  switch (error.type) {
    case "/problems/invalid-request":
    case "/problems/unauthorized":
    case "/problems/forbidden":
    case "/problems/no-such-task":
    case "/problems/malformed-body":
    case "/problems/request-timeout":
    case "/problems/body-too-large":
    case "/problems/unsupported-media-type":
    case "/problems/too-many-requests":
    case "/problems/internal":
    case "/problems/unavailable":
      return error.detail;
    default:
      exactly<VersionMismatchProblem>()(error);
      // @ts-expect-error This kind is forgotten.
      error satisfies never;
      return error.detail;
  }
}
assert.equal(forgets(late.error), late.error.detail);

// Completed, by a flip and by name.
const flipped = await api.toggleTaskCompletion(one);
exactly<Task | undefined>()(flipped.data);
exactly<CompleteError | undefined>()(flipped.error);
assert.equal(typeof flipped.data?.completed_at, "string");
const set = await api.toggleTaskCompletion({ ...one, body: { completed: true } });
assert.equal(set.data?.version, flipped.data?.version);

// Deleted, and then it is gone.
const gone = await api.deleteTask(one);
assert.equal(gone.response.status, 204);
const missing = await api.deleteTask(one);
exactly<DeleteError | undefined>()(missing.error);
refused(missing.error, 404, "/problems/no-such-task");

// The device hears of it; but not whoever comes with a place that is none.
const waiting = api.listChanges({ ...mine, query: { since: present(device.since, "since"), wait: 30 } });
device.apply(present((await waiting).data, "changes"));
await device.follow(told);
assert.deepEqual(device.ids(), ids.slice(1));
const lost = await api.listChanges({ ...mine, query: { since: "yesterday" } });
refused(lost.error, 410, "/problems/changes-expired");
assert.ok(lost.error?.type === "/problems/changes-expired");
exactly<ChangesExpiredProblem>()(lost.error);

// Refused.
const invalid = await api.createTask({ ...mine, body: { title: "" } });
refused(invalid.error, 422, "/problems/invalid-request");
assert.ok(invalid.error?.type === "/problems/invalid-request");
exactly<Violation[]>()(invalid.error.errors);
assert.deepEqual(invalid.error.errors.map(({ in: where, pointer, code }) => [where, pointer, code])[0], ["body", "/title", "minLength"]);
const none = await api.listTasks({ ...mine, query: { limit: 0 } });
refused(none.error, 422, "/problems/invalid-request");
assert.ok(none.error?.type === "/problems/invalid-request");
const [violation] = none.error.errors;
assert.deepEqual([violation?.in, violation?.name, violation?.code, violation?.limit], ["query", "limit", "minimum", 1]);
const anonymous = await api.listTasks({ client: createClient({ baseUrl: url }), path: { user_id } });
refused(anonymous.error, 401, "/problems/unauthorized");
const stranger = await api.listTasks({ client, path: { user_id: "somebody else" } });
refused(stranger.error, 403, "/problems/forbidden");

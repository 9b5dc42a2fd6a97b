// The round trip with orval's fetch client. Its answers are unions that the status tells apart.

import * as api from "./generated/orval";
import {
  assert, Device, exactly, is, loser, ofAnotherKind, present, refused, Same, TITLES, user_id, words,
  AnyProblem, Changes, ChangesError, ChangesExpiredProblem, CompleteError, CreateError, DeleteError, Health, HealthError, IdempotencyKeyReusedProblem, InvalidRequestProblem, ListError,
  NewTask, NoSuchTaskProblem, ReadError, ReadinessError, Task, TaskCompletion, TaskUpdate, UnauthorizedProblem, UpdateError,
  VersionMismatchProblem, Violation,
} from "./journey";

is<Same<api.Task, Task>>();
is<Same<api.NewTask, NewTask>>();
is<Same<api.TaskUpdate, TaskUpdate>>();
is<Same<api.TaskCompletion, TaskCompletion>>();
is<Same<api.Changes, Changes>>();
is<Same<api.AnyProblem, AnyProblem>>();

/** Ends the program unless the answer has this status, by which its body is known. */
function has<Answer extends { status: number }, Status extends Answer["status"]>(
  answer: Answer,
  status: Status,
): asserts answer is Extract<Answer, { status: Status }> {
  assert.equal(answer.status, status);
}

const health = await api.getHealth();
exactly<Health | HealthError>()(health.data);
has(health, 200);
assert.equal(health.data.status, "ok");
const readiness = await api.getReadiness();
exactly<Health | ReadinessError>()(readiness.data);
assert.equal(readiness.status, 200);

// Created, and once more by a client that did not hear the answer.
const ids: string[] = [];
for (const title of TITLES) {
  const created = await api.createTask(user_id, { title }, { "Idempotency-Key": `"${title}"` });
  exactly<Task | CreateError>()(created.data);
  has(created, 201);
  exactly<Task>()(created.data);
  assert.equal(created.headers.get("Idempotent-Replayed"), null);
  ids.unshift(created.data.id);
}
const again = { "Idempotency-Key": `"${TITLES[4]}"` };
const replay = await api.createTask(user_id, { title: "Sweep the stairs" }, again);
has(replay, 201);
assert.equal(replay.headers.get("Idempotent-Replayed"), "true");
assert.equal(replay.data.id, ids[0]);
const reuse = await api.createTask(user_id, { title: "Sweep the yard" }, again);
has(reuse, 422);
exactly<InvalidRequestProblem | IdempotencyKeyReusedProblem>()(reuse.data);
refused(reuse.data, 422, "/problems/idempotency-key-reused");

// Page by page.
const seen: string[] = [];
let cursor: string | null = null;
do {
  const page: api.listTasksResponse = await api.listTasks(user_id, { status: "all", limit: 2, ...(cursor === null ? {} : { cursor }) });
  exactly<Task[] | ListError | void>()(page.data);
  has(page, 200);
  exactly<Task[]>()(page.data);
  seen.push(...page.data.map((task) => task.id));
  cursor = page.headers.get("Next-Cursor");
} while (cursor !== null);
assert.deepEqual(seen, ids);

// What a device keeps, change by change.
const device = new Device();
const told = async () => {
  const { since } = device;
  const changes = await api.listChanges(user_id, { limit: 3, ...(since === undefined ? {} : { since }) });
  exactly<Changes | ChangesError>()(changes.data);
  has(changes, 200);
  exactly<Changes>()(changes.data);
  return changes.data;
};
await device.follow(told);
assert.deepEqual(device.ids(), ids);

// Read, and read again only if it has changed.
const id = present(ids[0], "id");
const read = await api.getTask(user_id, id);
exactly<Task | ReadError | void>()(read.data);
has(read, 200);
exactly<Task>()(read.data);
assert.equal(read.data.description, null);
const tag = present(read.headers.get("ETag"), "ETag");
const unchanged = await api.getTask(user_id, id, { "If-None-Match": tag });
has(unchanged, 304);
exactly<void>()(unchanged.data);

// Two write at once. One is told that it was late.
const write = (description: string) => api.updateTask(user_id, id, { description }, { "If-Match": tag });
const late = loser(await Promise.all([write("Twice a week"), write("On Sundays")]));
has(late, 412);
exactly<VersionMismatchProblem>()(late.data);
exactly<Task>()(late.data.current);
refused(late.data, 412, "/problems/version-mismatch");
assert.deepEqual(late.data.current, (await api.getTask(user_id, id)).data);

// Every kind of refusal has its own fields, also without a look at the status, and none can be forgotten.
type Refusal = api.updateTaskResponseError["data"];
exactly<UpdateError>()(late.data as Refusal);
function afterwards(error: Refusal): string {
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
assert.equal(afterwards(late.data), "It is version 2 now.");
function forgets(error: Refusal): string {
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
assert.equal(forgets(late.data), late.data.detail);

// Completed, by a flip and by name.
const flipped = await api.toggleTaskCompletion(user_id, id);
exactly<Task | CompleteError>()(flipped.data);
has(flipped, 200);
exactly<Task>()(flipped.data);
assert.equal(typeof flipped.data.completed_at, "string");
const set = await api.toggleTaskCompletion(user_id, id, { completed: true });
has(set, 200);
assert.equal(set.data.version, flipped.data.version);

// Deleted, and then it is gone.
const gone = await api.deleteTask(user_id, id);
has(gone, 204);
exactly<void>()(gone.data);
const missing = await api.deleteTask(user_id, id);
exactly<void | DeleteError>()(missing.data);
has(missing, 404);
exactly<NoSuchTaskProblem>()(missing.data);
refused(missing.data, 404, "/problems/no-such-task");

// The device hears of it; but not whoever comes with a place that is none.
const waiting = await api.listChanges(user_id, { since: present(device.since, "since"), wait: 30 });
has(waiting, 200);
device.apply(waiting.data);
await device.follow(told);
assert.deepEqual(device.ids(), ids.slice(1));
const lost = await api.listChanges(user_id, { since: "yesterday" });
has(lost, 410);
exactly<ChangesExpiredProblem>()(lost.data);
refused(lost.data, 410, "/problems/changes-expired");

// Refused.
const invalid = await api.createTask(user_id, { title: "" });
has(invalid, 422);
refused(invalid.data, 422, "/problems/invalid-request");
assert.ok(invalid.data.type === "/problems/invalid-request");
exactly<Violation[]>()(invalid.data.errors);
assert.deepEqual(invalid.data.errors.map(({ in: where, pointer, code }) => [where, pointer, code])[0], ["body", "/title", "minLength"]);
const none = await api.listTasks(user_id, { limit: 0 });
has(none, 422);
exactly<InvalidRequestProblem>()(none.data);
refused(none.data, 422, "/problems/invalid-request");
const [violation] = none.data.errors;
assert.deepEqual([violation?.in, violation?.name, violation?.code, violation?.limit], ["query", "limit", "minimum", 1]);
const anonymous = await api.listTasks(user_id, {}, {}, { headers: { Authorization: "" } });
has(anonymous, 401);
exactly<UnauthorizedProblem>()(anonymous.data);
refused(anonymous.data, 401, "/problems/unauthorized");
const stranger = await api.listTasks("somebody else");
has(stranger, 403);
refused(stranger.data, 403, "/problems/forbidden");

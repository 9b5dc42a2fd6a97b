// The package's types, as a caller meets them who compiles strictly. Nothing here is run.

import type { Client } from "openapi-fetch";
import { type Changes, createTaskpact, isProblem, type NewTask, type NotModified, type paths, retrying, type Task, type Taskpact, type TaskUpdate, type AnyProblem } from "taskpact";
import * as hand from "./by-hand";

const { exactly, is } = hand;
type Same<A, B> = hand.Same<A, B>;

// As a person would have written them down.
is<Same<Task, hand.Task>>();
is<Same<NewTask, hand.NewTask>>();
is<Same<TaskUpdate, hand.TaskUpdate>>();
is<Same<Changes, hand.Changes>>();
is<Same<AnyProblem, hand.AnyProblem>>();

declare const client: Taskpact;
declare const task: Task;
declare const id: string;

// What takes a client of openapi-fetch takes this one.
client satisfies Client<paths>;

exactly<hand.Task[] | undefined>()((await client.list()).data);
exactly<hand.ListError | undefined>()((await client.list()).error);
exactly<hand.Task | undefined>()((await client.get(id)).data);
exactly<hand.ReadError | undefined>()((await client.get(id)).error);
exactly<hand.Task | undefined>()((await client.create({ title: "t" })).data);
exactly<hand.CreateError | undefined>()((await client.create({ title: "t" })).error);
exactly<hand.Task | undefined>()((await client.update(task, { description: null })).data);
exactly<hand.DeleteError | undefined>()((await client.remove(id)).error);
exactly<hand.CompleteError | undefined>()((await client.toggle(id)).error);
exactly<hand.CompleteError | undefined>()((await client.complete(id)).error);
exactly<hand.CompleteError | undefined>()((await client.reopen(id)).error);
for await (const one of client.allTasks({ status: "pending", pageSize: 10 })) exactly<hand.Task>()(one);
exactly<hand.Changes | undefined>()((await client.changes({ limit: 1 })).data);
exactly<hand.ChangesError | undefined>()((await client.changes({ limit: 1 })).error);
// What a device has kept may be undefined, or null.
declare const kept: string | null | undefined;
for await (const { startsOver, ...changes } of client.follow({ since: kept })) {
  exactly<boolean>()(startsOver);
  exactly<hand.Changes>()(changes);
}

// One problem of several, and without a type any.
const { error } = await client.update(task, {});
exactly<hand.UpdateError | undefined>()(error);
if (isProblem(error, "/problems/version-mismatch")) exactly<hand.VersionMismatchProblem>()(error);
if (isProblem(error, "/problems/invalid-request")) exactly<hand.Violation[]>()(error.errors);
declare const unknown: unknown;
if (isProblem(unknown, "/problems/version-mismatch")) exactly<hand.VersionMismatchProblem>()(unknown);
if (isProblem(unknown)) exactly<hand.AnyProblem>()(unknown);
// @ts-expect-error No such type is in the contract.
isProblem(error, "/problems/quota-exceeded");

// Without data there is an error, unless the request may be answered 304. That a caller can't overlook.
const path = { user_id: "ann", task_id: id };
const plain = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path } });
if (plain.data === undefined) plain.error.detail;
const conditional = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path, header: { "If-None-Match": '"1"' } } });
exactly<hand.Task | undefined>()(conditional.data);
exactly<hand.ReadError | undefined>()(conditional.error);
// @ts-expect-error There may be neither.
if (conditional.data === undefined) conditional.error.detail;
if (conditional.data === undefined && conditional.error === undefined) exactly<NotModified>()(conditional);
const page = await client.GET("/api/{user_id}/tasks", { params: { path, header: { "If-None-Match": 'W/"1"' } } });
exactly<hand.Task[] | undefined>()(page.data);
// @ts-expect-error There may be neither.
if (page.data === undefined) page.error.detail;

// What the contract does not have does not compile.
// @ts-expect-error A field that is not there.
client.create({ titel: "t" });
// @ts-expect-error A title is needed.
client.create({});
// @ts-expect-error Left out is not undefined.
client.list({ status: undefined });
// @ts-expect-error A state that is not there.
client.list({ status: "done" });
// @ts-expect-error Without a version nothing can be compared.
client.update({ id }, {});
// @ts-expect-error A path that is not there.
client.GET("/api/tasks");
// @ts-expect-error A token is needed.
createTaskpact({ baseUrl: "" });

// All kinds of tokens, and a fetch like any other.
for (const token of ["t", () => "t", () => undefined, async () => "t", async (): Promise<string | null | undefined> => null]) {
  createTaskpact({ baseUrl: "", token });
}
retrying({ attempts: 3 }) satisfies typeof globalThis.fetch;

// What the package promises, step by step, through what it exports. It runs in Node.js and in Chromium, against the real
// server, and asks its `World` for what it can't do itself: tokens, faults on the way, the server's log.

import { authorizing, createTaskpact, isProblem, ProblemError, retrying, type Task, type Taskpact, TokenStore } from "taskpact";
import { following } from "./following.js";
import { clientOf, lasted, must, present, reached, rejection, same, type World } from "./world.js";

/** A step that never ends is one that fails. */
const ends = (seconds: number, work: Promise<void>): Promise<void> =>
  Promise.race([work, new Promise<void>((_, reject) => setTimeout(() => reject(new Error(`it did not end within ${seconds} s`)), seconds * 1000))]);

const titles = async (client: Taskpact) => present((await client.list()).data, "list").map(({ title }) => title);

export const steps: Record<string, (world: World) => Promise<void>> = {
  async "every operation"(world) {
    const client = await clientOf(world, "every operation", { baseUrl: `${world.url}/` });
    const met = await reached(world, async () => {
      same((await client.GET("/health")).data?.status, "ok", "health");
      same((await client.GET("/health/ready")).data?.status, "ok", "readiness");
      const { data: created } = await client.create({ title: "Water the plants" });
      const { id } = present(created, "task");
      same((await client.get(id)).data, created, "what was created, read");
      same((await client.list()).data, [created], "what was created, in a list");
      same((await client.changes()).data?.tasks, [created], "what was created, among the changes");
      const updated = await client.update(present(created, "task"), { description: "The ones on the balcony, too" });
      same([updated.data?.description, updated.data?.version], ["The ones on the balcony, too", 2], "what was changed");
      same((await client.complete(id)).data?.completed, true, "completed");
      same((await client.complete(id)).data?.completed, true, "completed again");
      same((await client.reopen(id)).data?.completed, false, "reopened");
      same((await client.toggle(id)).data?.completed, true, "toggled");
      const removed = await client.remove(id);
      same([removed.response.status, removed.error], [204, undefined], "removed");
      must(isProblem((await client.remove(id)).error, "/problems/no-such-task"), "what is gone was removed again");
      const invalid = await client.create({ title: "" });
      must(isProblem(invalid.error, "/problems/invalid-request"), "an empty title was taken");
      same(invalid.error.errors[0]?.pointer, "/title", "what was wrong");
      must(!isProblem(invalid.error, "/problems/unauthorized"), "a problem is of two types");

      // By the paths, as with openapi-fetch alone.
      const path = { user_id: "every operation" };
      const posted = await client.POST("/api/{user_id}/tasks", { params: { path }, body: { title: "Feed the cat" } });
      const one = { path: { ...path, task_id: present(posted.data, "task").id } };
      same((await client.GET("/api/{user_id}/tasks/{task_id}", { params: one })).data, posted.data, "what was posted");
      same((await client.PUT("/api/{user_id}/tasks/{task_id}", { params: one, body: { completed: true } })).data?.version, 2, "what was put");
      same((await client.PATCH("/api/{user_id}/tasks/{task_id}/complete", { params: one })).data?.version, 3, "what was patched");
      same((await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: one })).response.status, 204, "what was deleted");
    });
    for (const one of [
      "getHealth 200", "getReadiness 200", "createTask 201", "getTask 200", "listTasks 200", "updateTask 200",
      "toggleTaskCompletion 200", "deleteTask 204", "deleteTask 404", "createTask 422", "listChanges 200",
    ]) must(met.includes(one), `no ${one} in ${met}`);
    same(met.length, 19, "how many requests it took");
  },

  async "a request whose answer is lost takes effect once"(world) {
    for (const what of ["lose", "halve"] as const) {
      const client = await clientOf(world, `answers: ${what}`);
      await world.fault({ method: "POST", times: 2, what });
      const created = await client.create({ title: "Water the plants" });
      same(created.response.headers.get("Idempotent-Replayed"), "true", "the answer of a repeat");
      await world.fault({ method: "POST", times: 1, what });
      await client.POST("/api/{user_id}/tasks", { params: { path: { user_id: `answers: ${what}` } }, body: { title: "Feed the cat" } });
      same(await titles(client), ["Feed the cat", "Water the plants"], "the tasks there are");

      const { id, version } = present(created.data, "task");
      await world.fault({ method: "PATCH", times: 1, what });
      const flipped = await client.toggle(id);
      same([flipped.data?.completed, flipped.data?.version], [true, 2], "a task that was flipped");

      // Without a key of its own a repeat would meet its own effect.
      await world.fault({ method: "PUT", times: 1, what });
      const update = await client.update({ id, version: version + 1 }, { title: "Water them twice" });
      must(isProblem(update.error, "/problems/version-mismatch"), "the repeat of a change did not meet the change");
      same([update.error.current.title, update.error.current.version], ["Water them twice", 3], "what the change made");

      // An answer without a body does not break off halfway: Chromium takes a head that lacks its last byte.
      await world.fault({ method: "DELETE", times: 1, what: "lose" });
      must(isProblem((await client.remove(id)).error, "/problems/no-such-task"), "a task was deleted twice");
      await world.fault({ method: "GET", times: 2, what });
      same(await titles(client), ["Feed the cat"], "the tasks there are left");
    }
  },

  async "a key of the caller's own stays"(world) {
    const client = await clientOf(world, "own key");
    const idempotencyKey = "what-the-user-wants";
    const [first, second] = [await client.create({ title: "Once" }, { idempotencyKey }), await client.create({ title: "Once" }, { idempotencyKey })];
    same(second.data, first.data, "the second answer");
    same(second.response.headers.get("Idempotent-Replayed"), "true", "whether it is a replay");
    same(await titles(client), ["Once"], "the tasks there are");
    const { id } = present(first.data, "task");
    const flips = [await client.toggle(id, { idempotencyKey: "flip" }), await client.toggle(id, { idempotencyKey: "flip" })];
    same(flips.map(({ data }) => data?.version), [2, 2], "the versions after a flip and its repeat");
    // And two requests without one are two requests.
    await client.create({ title: "Twice" });
    await client.create({ title: "Twice" });
    same((await titles(client)).length, 3, "how many tasks there are");
  },

  async "a user who asks too often waits as long as Retry-After says"(world) {
    const user = "in a hurry";
    const client = createTaskpact({ baseUrl: world.limited, token: await world.limitedToken(user) });
    const met = await reached(world, async () => {
      const took = await lasted(async () => {
        same((await client.list()).response.status, 200, "the first answer");
        same((await client.list()).response.status, 200, "the second answer");
      });
      // The first back-off alone is at most half a second.
      must(took > 900, `it waited ${took} ms only`);
    }, "limited");
    same(met, ["listTasks 200", "listTasks 429", "listTasks 200"], "what reached the server");
  },

  async "what a proxy answers for the server is repeated"(world) {
    const client = await clientOf(world, "proxies");
    for (const status of [502, 503, 504]) {
      await world.fault({ method: "POST", times: 2, what: { status, body: "<h1>Bad</h1>" } });
      same((await client.create({ title: String(status) })).response.status, 201, `the answer after ${status}`);
    }
    same(await titles(client), ["504", "503", "502"], "the tasks there are");
    const seconds = { status: 503, headers: { "Retry-After": "2" } };
    await world.fault({ method: "GET", times: 1, what: seconds });
    const bySeconds = await lasted(() => client.list());
    must(bySeconds > 1900 && bySeconds < 4000, `it waited ${bySeconds} ms for two seconds`);
    // A date has no fractions: it is between two and three seconds away.
    const date = { status: 503, headers: { "Retry-After": new Date(Date.now() + 3000).toUTCString() } };
    await world.fault({ method: "GET", times: 1, what: date });
    const byDate = await lasted(() => client.list());
    must(byDate > 1500 && byDate < 4500, `it waited ${byDate} ms for a date`);
  },

  async "what is no transient failure is not repeated"(world) {
    const client = await clientOf(world, "for good");
    for (const status of [400, 404, 409, 500]) {
      await world.fault({ method: "POST", times: 1, what: { status, body: "{}" } });
      same((await client.create({ title: String(status) })).response.status, status, "the answer");
    }
    const key = { type: "/problems/idempotency-key-in-use", title: "", status: 409, detail: "", request_id: "" };
    await world.fault({ method: "POST", times: 1, what: { status: 409, body: JSON.stringify(key) } });
    same((await client.create({ title: "in use" })).response.status, 201, "the answer after a key in use");
    // No method that may be repeated, and the contract has no key for it.
    const url = `${world.faulty}/nowhere`;
    await world.fault({ method: "PATCH", times: 1, what: { status: 503 } });
    same((await retrying()(url, { method: "PATCH" })).status, 503, "the answer to another PATCH");
  },

  async "neither attempts nor waits are without a bound"(world) {
    const client = await clientOf(world, "bounds", { attempts: 3 });
    const refusal = { status: 503, headers: { "Retry-After": "0" } };
    await world.fault({ method: "GET", times: 3, what: refusal });
    same((await client.list()).response.status, 503, "the last answer");
    await world.fault({ method: "GET", times: 3, what: "lose" });
    const backedOff = await lasted(async () =>
      must((await rejection(client.list(), "a request that always fails")) instanceof TypeError, "it rejects otherwise than fetch"));
    // A quarter of a second at least, and then a half.
    must(backedOff > 740, `it waited ${backedOff} ms between three attempts`);
    same((await client.list()).response.status, 200, "the answer when all is well again");
    await world.fault({ method: "GET", times: 1, what: { status: 429, headers: { "Retry-After": "3600" } } });
    const took = await lasted(async () => same((await client.list()).response.status, 429, "an answer for which to wait an hour"));
    must(took < 1000, `it waited ${took} ms`);
    for (const options of [{ attempts: Infinity }, { attempts: 0 }, { attempts: NaN }, { timeoutMs: Infinity }, { maxWaitMs: Infinity }]) {
      const error = await rejection((async () => retrying(options))(), JSON.stringify(options));
      must(error instanceof RangeError, `${Object.keys(options)} can be anything`);
    }
  },

  async "an attempt that hangs is given up, and the caller's signal stays"(world) {
    const client = await clientOf(world, "hangs", { timeoutMs: 400, attempts: 2 });
    await world.fault({ method: "GET", times: 1, what: "stall" });
    same((await client.list({}, { signal: new AbortController().signal })).data, [], "the second answer");
    await world.fault({ method: "GET", times: 2, what: "stall" });
    const error = await rejection(client.list(), "a server that hangs");
    same((error as Error).name, "TimeoutError", "the error");
  },

  async "an abort ends everything at once"(world) {
    const patient = await clientOf(world, "aborts");
    const cases: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
      "a wait": async (signal) => {
        await world.fault({ method: "GET", times: 1, what: { status: 503, headers: { "Retry-After": "20" } } });
        return patient.list({}, { signal });
      },
      "an attempt": async (signal) => {
        await world.fault({ method: "POST", times: 1, what: "stall" });
        return patient.create({ title: "Never" }, { signal });
      },
      "a token": async (signal) => {
        const client = await clientOf(world, "aborts", { token: () => new Promise(() => {}) });
        return client.list({}, { signal });
      },
      "a token for a path": async (signal) => {
        const client = await clientOf(world, "aborts", { token: () => new Promise(() => {}), userId: "aborts" });
        return client.list({}, { signal });
      },
      "the pages of a list": async (signal) => {
        await world.fault({ method: "GET", times: 1, what: "stall" });
        for await (const _ of patient.allTasks({ signal }));
      },
      "the wait for a change": async (signal) => {
        for await (const _ of patient.follow({ signal }));
      },
      "a wait while the server can't be reached": async (signal) => {
        await world.fault({ method: "GET", times: 1, what: { status: 503, headers: { "Retry-After": "20" } } });
        for await (const _ of patient.follow({ signal }));
      },
    };
    for (const [name, work] of Object.entries(cases)) {
      const controller = new AbortController();
      const reason = new Error("the user went away");
      let since = 0;
      setTimeout(() => (since = performance.now(), controller.abort(reason)), 300);
      const error = await rejection(work(controller.signal), name);
      const took = performance.now() - since;
      must(error === reason, `the reason of an abort in ${name} is ${error}`);
      must(since > 0 && took < 200, `${name} went on for ${took} ms`);
    }
    await world.fault({ method: "GET", times: 1, what: "stall" });
    const took = await lasted(async () => {
      const error = await rejection(patient.list({}, { signal: AbortSignal.timeout(300) }), "a time-out of the caller's own");
      same((error as Error).name, "TimeoutError", "the reason");
    });
    must(took < 500, `a time-out of 300 ms took ${took} ms`);
    const gone = AbortSignal.abort(new Error("gone before"));
    const met = await reached(world, () => rejection(patient.create({ title: "Never" }, { signal: gone }), "an aborted request"));
    same(met, [], "what reached the server");
  },

  async "a token is asked for once, kept, and asked for again before it expires"(world) {
    const user = "keeps";
    let asked = 0;
    let ttl = "1h";
    const client = createTaskpact({ baseUrl: world.url, token: () => (asked++, world.token(user, ttl)) });
    const answers = await Promise.all([client.list(), client.create({ title: "At once" }), client.list(), client.GET("/health")]);
    same(answers.map(({ response }) => response.status), [200, 201, 200, 200], "the answers");
    same(asked, 1, "how often four requests at once asked for a token");
    await client.list();
    same(asked, 1, "how often a later request asked");

    client.forgetToken();
    ttl = "4s";
    await client.list();
    await client.list();
    same(asked, 2, "how often it was asked after the sign-out");
    // It would be valid for another second or two.
    await new Promise((resolve) => setTimeout(resolve, 2200));
    await client.list();
    same(asked, 3, "how often it was asked when the token was about to expire");
  },

  async "a token that is refused is asked for once more"(world) {
    const user = "stale";
    const tokens = [await world.staleToken(user), await world.token(user), await world.staleToken(user), await world.staleToken(user, "2h")];
    let asked = 0;
    const client = createTaskpact({ baseUrl: world.url, userId: user, token: async () => present(tokens[asked++], "token") });
    const met = await reached(world, async () => {
      const answers = await Promise.all([client.list(), client.list(), client.create({ title: "Once" })]);
      same(answers.map(({ response }) => response.status), [200, 200, 201], "the answers");
    });
    same(asked, 2, "how often was asked for a token");
    // 304 is for the cache of the browser, which may have the list with the task already, or without it.
    const of200 = (requests: string[]) => requests.map((one) => one.replace("304", "200"));
    const served = of200(met.filter((one) => !one.endsWith(" 401")));
    same(served.sort(), ["createTask 201", "listTasks 200", "listTasks 200"], "what was served");
    client.forgetToken();
    const refused = await reached(world, async () => {
      const { error } = await client.list();
      must(isProblem(error, "/problems/unauthorized"), "two refused tokens are no 401");
    });
    same(asked, 4, "how often was asked when the second is refused, too");
    same(refused, ["listTasks 401", "listTasks 401"], "what reached the server");
    tokens.push(await world.token(user, "2h"));
    same(of200(await reached(world, () => client.list())), ["listTasks 200"], "what reached the server after that");

    // Of a fixed token there is no other, and without a session there is none.
    const fixed = createTaskpact({ baseUrl: world.url, userId: user, token: await world.staleToken(user) });
    same(await reached(world, () => fixed.list()), ["listTasks 401"], "what reached the server with a fixed token");
    asked = 0;
    const nobody = createTaskpact({ baseUrl: world.url, userId: user, token: () => (asked++, null) });
    same(await reached(world, () => nobody.list()), ["listTasks 401"], "what reached the server without a session");
    same(asked, 1, "how often was asked for the token of nobody");
    const pathless = createTaskpact({ baseUrl: world.url, token: () => null });
    must(/whose tasks/.test(String(await rejection(pathless.list(), "a path without a user"))), "a path has no user");
  },

  async "whoever signs out is forgotten, also while a token is on its way"(world) {
    const given = [world.token("ann of forget"), world.token("bob of forget")];
    let asked = 0;
    let arrive = (): void => {};
    const arrives = new Promise<void>((resolve) => (arrive = resolve));
    const client = createTaskpact({
      baseUrl: world.url,
      token: async () => {
        const token = await present(given[asked++], "token");
        if (asked === 1) await arrives;
        return token;
      },
    });
    const early = client.create({ title: "Ann's" });
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.forgetToken();
    same((await client.create({ title: "Bob's" })).data?.user_id, "bob of forget", "who it is after the sign-out");
    arrive();
    // What was asked for before the sign-out has Ann's path, and is not done with Bob's token.
    same((await early).response.status, 403, "the answer to who asked before");
    same((await client.list()).data?.map(({ title }) => title), ["Bob's"], "whose list it is");
    same(asked, 2, "how often was asked");
  },

  async "asking for a token is given up, and its failure is the request's"(world) {
    const client = createTaskpact({ baseUrl: world.url, userId: "x", token: () => Promise.reject(new Error("no issuer")) });
    same(String(await rejection(client.list(), "a failing token")), "Error: no issuer", "the error");
    const hangs = createTaskpact({ baseUrl: world.url, userId: "x", token: () => new Promise(() => {}), timeoutMs: 200, attempts: 1 });
    same((await rejection(hangs.list(), "a hanging token") as Error).name, "TimeoutError", "the error");
    let asked = 0;
    const second = createTaskpact({
      baseUrl: world.url,
      token: async () => {
        if (++asked === 1) throw new Error("not yet");
        return world.token("second");
      },
    });
    await rejection(second.list(), "a token that is not there yet");
    same((await second.list()).response.status, 200, "the answer to the next request");
  },

  async "a user's id of any letters comes from the token"(world) {
    const user = "Zoë / ✓?";
    const client = createTaskpact({ baseUrl: world.url, token: await world.token(user) });
    same((await client.create({ title: "Hers" })).data?.user_id, user, "the user");
    const other = createTaskpact({ baseUrl: world.url, token: await world.token(user), userId: "somebody else" });
    must(isProblem((await other.list()).error, "/problems/forbidden"), "`userId` does not count");
  },

  async "a lost update is told with the task as it is now"(world) {
    const client = await clientOf(world, "lost update");
    const task = present((await client.create({ title: "Water the plants" })).data, "task");
    await client.update(task, { title: "Somebody was faster" });
    const { data, error, response } = await client.update(task, { description: "Too late" });
    must(data === undefined && isProblem(error, "/problems/version-mismatch"), "a lost update was not told");
    same([error.current.title, error.current.version, response.status], ["Somebody was faster", 2, 412], "what is told");
    same((await client.update(error.current, { description: "Not too late" })).data?.version, 3, "the version after all");
  },

  async "all pages of a list are followed"(world) {
    const client = await clientOf(world, "pages");
    const all: Task[] = [];
    for (let at = 0; at < 7; at++) all.unshift(present((await client.create({ title: `Task ${at}`, completed: at % 2 === 1 })).data, "task"));
    const collect = async (options?: Parameters<Taskpact["allTasks"]>[0]) => {
      const tasks = [];
      for await (const task of client.allTasks(options)) tasks.push(task);
      return tasks;
    };
    // An answer that is lost between two pages costs nothing.
    const met = await reached(world, async () => {
      await world.fault({ method: "GET", times: 1, what: "lose" });
      same(await collect({ pageSize: 3 }), all, "all tasks");
    });
    same(met.length, 4, "how many requests it took");
    same(await collect(), all, "all tasks, at once");
    same(await collect({ status: "completed", pageSize: 1 }), all.filter(({ completed }) => completed), "the completed ones");
    same((await reached(world, async () => {
      for await (const _ of client.allTasks({ pageSize: 2 })) break;
    })).length, 1, "how many pages are asked for by who stops at the first task");
    const error = await rejection(collect({ pageSize: 0 }), "a page of no task");
    must(error instanceof ProblemError && error instanceof Error, "it is no ProblemError");
    must(isProblem(error.problem, "/problems/invalid-request"), "it has no problem");
    same([error.response.status, error.name, error.message], [422, "ProblemError", error.problem.detail], "what is thrown");
    // The cursor need not exist any more.
    const [newest] = all;
    await client.remove(present(newest, "task").id);
    same((await client.list({ cursor: present(newest, "task").id })).data?.length, 6, "how many come after it");
  },

  async "what has not changed is neither data nor an error"(world) {
    const user_id = "unchanged";
    const client = await clientOf(world, user_id);
    const task = present((await client.create({ title: "Still" })).data, "task");
    // A browser's cache would answer by itself.
    const cache = "no-store";
    const one = { path: { user_id, task_id: task.id } };
    const reads = [
      (tag: string) => client.GET("/api/{user_id}/tasks", { params: { path: { user_id }, header: { "If-None-Match": tag } }, cache }),
      (tag: string) => client.GET("/api/{user_id}/tasks/{task_id}", { params: { ...one, header: { "If-None-Match": tag } }, cache }),
    ];
    for (const read of reads) {
      const first = await read('"another"');
      same([first.response.status, first.error], [200, undefined], "the first answer");
      const tag = present(first.response.headers.get("ETag") ?? undefined, "ETag");
      const second = await read(tag);
      same([second.response.status, second.response.headers.get("ETag")], [304, tag], "the second answer");
      must(second.data === undefined && second.error === undefined, "what has not changed is data or an error");
    }
  },

  async "a type that is added tomorrow breaks nothing"(world) {
    const client = await clientOf(world, "tomorrow");
    const tomorrows = { type: "/problems/quota-exceeded", title: "Quota exceeded", status: 402, detail: "That was much.", request_id: "1" };
    await world.fault({ method: "GET", times: 2, what: { status: 402, headers: { "Content-Type": "application/problem+json" }, body: JSON.stringify(tomorrows) } });
    const { error } = await client.list();
    must(isProblem(error) && !isProblem(error, "/problems/internal"), "it is no problem");
    same(error.detail, "That was much.", "its detail");
    const thrown = await rejection((async () => {
      for await (const _ of client.allTasks());
    })(), "a list");
    must(thrown instanceof ProblemError, "it is no ProblemError");
    same([thrown.message, thrown.problem], ["That was much.", tomorrows], "what is thrown");
    // And what is no problem at all.
    await world.fault({ method: "GET", times: 2, what: { status: 404, body: "<h1>Not here</h1>" } });
    must(!isProblem((await client.list()).error), "a page of a proxy is a problem");
    const page = await rejection((async () => {
      for await (const _ of client.allTasks());
    })(), "a list");
    must(page instanceof ProblemError && page.problem === undefined && /404/.test(page.message), "what is thrown has a problem");
    for (const value of [undefined, null, "", "text", 1, [], {}, { type: 1, status: 1 }]) must(!isProblem(value), `${JSON.stringify(value)} is a problem`);
  },

  async "the parts work with any fetch"(world) {
    const user = "parts";
    const tokens = [await world.staleToken(user), await world.token(user)];
    const store = new TokenStore(() => tokens.shift());
    const fetch = retrying({ fetch: authorizing(store) });
    const url = `${world.faulty}/api/${user}/tasks`;
    const body = JSON.stringify({ title: "By hand" });
    const headers = { "Content-Type": "application/json" };
    // The first is refused for its token, the second lost.
    const met = await reached(world, async () => {
      same((await fetch(new URL(url), { method: "POST", headers, body })).status, 201, "a POST with an address and options");
      await world.fault({ method: "POST", times: 1, what: "lose" });
      same((await fetch(new Request(url, { method: "POST", headers, body }))).status, 201, "a POST with a Request");
    });
    same(met, ["createTask 401", "createTask 201", "createTask 201", "createTask 201"], "what reached the server");
    same((await fetch(url, { headers: { Authorization: `Bearer ${await world.staleToken(user)}` } })).status, 401, "the answer to another's token");
    if (world.streams) {
      const stream = new Blob([JSON.stringify({ title: "By and by" })]).stream();
      await world.fault({ method: "POST", times: 1, what: "lose" });
      const init = { method: "POST", headers, body: stream, duplex: "half" };
      same((await fetch(url, init)).status, 201, "a POST with a stream");
    }
    const listed = (await (await fetch(url)).json()) as Task[];
    same(listed.map(({ title }) => title), [...(world.streams ? ["By and by"] : []), "By hand", "By hand"], "the tasks there are");
  },

  ...following,

  async "a key that is in use is waited for"(world) {
    if (!world.busy) return;
    const { url, token, key } = await world.busy();
    const client = createTaskpact({ baseUrl: url, token, attempts: 10 });
    const seen: number[] = [];
    const fetch: typeof globalThis.fetch = async (input, init) => {
      const answer = await globalThis.fetch(input, init);
      seen.push(answer.status);
      return answer;
    };
    const counting = createTaskpact({ baseUrl: url, token, attempts: 10, fetch });
    same((await counting.create({ title: "In a while" }, { idempotencyKey: key })).response.status, 201, "the answer");
    must(seen.length > 1 && seen.slice(0, -1).every((status) => status === 409), `the answers were ${seen}`);
    same((await titles(client)).filter((title) => title === "In a while").length, 1, "how many tasks were made");
  },
};

/** Whoever never answers with a token is asked again after 20 seconds. That takes longer than some steps together. */
async function givesUpATokenThatNeverComes(): Promise<void> {
  let asked = 0;
  const store = new TokenStore(() => (++asked === 1 ? new Promise<string>(() => {}) : "the next"));
  same((await rejection(store.get(), "a token that never comes") as Error).name, "TimeoutError", "the error");
  same(await store.get(), "the next", "the token that is asked for then");
}

/** Takes every step, and tells which ones failed. */
export async function journey(world: World): Promise<{ taken: number; failed: string[] }> {
  const failed: string[] = [];
  const fails = (name: string) => (error: unknown) => void failed.push(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
  const meanwhile = ends(30, givesUpATokenThatNeverComes()).catch(fails("a token that never comes is given up"));
  for (const [name, step] of Object.entries(steps)) {
    await ends(60, step(world)).catch(fails(name));
  }
  await meanwhile;
  return { taken: Object.keys(steps).length, failed };
}

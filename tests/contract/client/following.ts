// What the package promises to devices that keep tasks of their own.

import { createTaskpact, type FollowOptions, isProblem, type News, ProblemError, type Task, type Taskpact } from "taskpact";
import { clientOf, type Fault, lasted, must, present, reached, rejection, same, type World } from "./world.js";

/** A device that follows the changes, and keeps what it is told as the README says. */
class Device {
  readonly tasks = new Map<string, Task>();
  next: string | undefined;
  readonly news: News[] = [];
  readonly #controller = new AbortController();
  /** Why it has ended: after `stop` for no reason. */
  ended: Promise<unknown> = Promise.resolve();

  constructor(readonly client: Taskpact) {}

  apply(news: News): void {
    if (news.startsOver) this.tasks.clear();
    for (const task of news.tasks) this.tasks.set(task.id, task);
    for (const { id } of news.deleted) this.tasks.delete(id);
    this.next = news.next;
    this.news.push(news);
  }

  start(options: FollowOptions = {}): this {
    const follow = async () => {
      for await (const news of this.client.follow({ since: this.next, ...options, signal: this.#controller.signal })) this.apply(news);
    };
    this.ended = follow().catch((error: unknown) => (this.#controller.signal.aborted ? undefined : error));
    return this;
  }

  async stop(): Promise<void> {
    this.#controller.abort(new Error("the app is closed"));
    same(await this.ended, undefined, "why a device has ended");
  }

  /** Waits until it is so, or until it has ended. */
  async until(isSo: () => boolean, seconds = 20): Promise<void> {
    let error: unknown;
    void this.ended.then((why) => (error = why));
    for (const end = Date.now() + seconds * 1000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 20))) {
      if (error !== undefined) throw error;
      must(Date.now() < end, `it is not so after ${seconds} s: ${isSo}; the device has ${JSON.stringify(this)}`);
    }
  }

  /** Waits until it has what the server has. */
  async isInStep(client = this.client): Promise<void> {
    const listed = JSON.stringify(present((await client.list()).data, "list"));
    await this.until(() => JSON.stringify([...this.tasks.values()].sort((a, b) => (a.id < b.id ? 1 : -1))) === listed);
  }
}

export const following: Record<string, (world: World) => Promise<void>> = {
  async "devices that follow the changes come to have the same"(world) {
    const user = "devices";
    const writer = await clientOf(world, user);
    const early = await Promise.all([1, 2, 3, 4, 5].map(async (at) => present((await writer.create({ title: `Task ${at}` })).data, "task")));
    const [first, second] = early as [Task, Task];
    await writer.remove(first.id);
    const devices = [new Device(await clientOf(world, user)).start({ limit: 2 }), new Device(await clientOf(world, user, { baseUrl: world.url })).start()] as const;
    const [small, large] = devices;
    for (const device of devices) await device.isInStep();
    // What was deleted before it began is not told.
    same(small.news.map(({ tasks, deleted, startsOver, has_more }) => [tasks.length, deleted.length, startsOver, has_more]), [[2, 0, true, true], [2, 0, false, false]], "what comes in twos");
    same(large.news.map(({ tasks, startsOver }) => [tasks.length, startsOver]), [[4, true]], "what comes at once");

    // Each hears of what the other does, within a second, also through another server.
    const told = await lasted(async () => {
      await small.client.complete(second.id);
      await large.until(() => large.tasks.get(second.id)?.completed === true);
    });
    must(told < 5000, `a change was told after ${told} ms`);
    await large.client.remove(second.id);
    await small.until(() => !small.tasks.has(second.id));
    same(large.news.every(({ startsOver }, at) => startsOver === (at === 0)), true, "that nothing starts over");

    // A device that was away goes on where it was, and hears at once how things stand.
    await large.stop();
    const again = new Device(large.client);
    for (const news of large.news) again.apply(news);
    again.news.length = 0;
    again.start();
    await again.until(() => again.news.length === 1);
    same([again.news[0]?.startsOver, again.news[0]?.tasks, again.news[0]?.deleted], [false, [], []], "what has changed meanwhile");
    await writer.create({ title: "Task 6" });
    for (const device of [small, again]) await device.isInStep();
    await small.stop();
    await again.stop();

    // And by hand, call by call.
    const { data } = await writer.changes({ limit: 2 });
    same([data?.tasks.length, data?.has_more], [2, true], "the first of the changes");
    const rest = present((await writer.changes({ since: present(data, "answer").next })).data, "answer");
    same([rest.tasks.length, rest.has_more], [2, false], "the rest of the changes");
  },

  async "a device that can't be told what it missed starts over"(world) {
    const user = "starts-over";
    const client = await clientOf(world, user, { baseUrl: world.url });
    await client.create({ title: "Before" });
    const [away, present] = [new Device(client).start(), new Device(client).start()];
    for (const device of [away, present]) await device.isInStep();
    await away.stop();
    await world.erase(user);
    must(isProblem((await client.changes({ since: away.news[0]!.next })).error, "/problems/changes-expired"), "a place outlives its user");
    await present.until(() => present.news.length > 1);
    await client.create({ title: "After" });
    const back = new Device(client);
    back.apply(away.news[0]!);
    for (const device of [present, back.start()]) {
      await device.isInStep();
      same([...device.tasks.values()].map(({ title }) => title), ["After"], "what the device has");
      must(device.news[1]?.startsOver, "it does not start over");
      await device.stop();
    }
  },

  async "a device outlasts faults, refusals and a restart"(world) {
    const user = "outlasts";
    const writer = await clientOf(world, user, { baseUrl: world.url });
    const device = new Device(await clientOf(world, user, { timeoutMs: 500, maxWaitMs: 1000, attempts: 1 }));
    const hears = async (title: string) => {
      await writer.create({ title });
      await device.isInStep(writer);
    };
    const meets = async (times: number, what: Fault["what"]) => {
      await world.fault({ method: "GET", times, what });
      // The request that waits has not met it.
      await new Promise((resolve) => setTimeout(resolve, 1100));
    };
    await world.fault({ method: "GET", times: 2, what: "lose" });
    device.start({ wait: 1 });
    await hears("lost");
    for (const [times, what] of [[1, "halve"], [1, "stall"], [2, { status: 500 }], [2, { status: 429 }]] as const) {
      await meets(times, what);
      await hears(JSON.stringify(what));
    }
    // As long as is asked for, which is longer than it would wait by itself.
    await meets(1, { status: 503, headers: { "Retry-After": "6" } });
    const told = await lasted(async () => {
      const { data } = await writer.create({ title: "in a while" });
      await device.until(() => device.tasks.has(present(data, "task").id));
    });
    must(told > 1500, `it was asked to wait for six seconds, and has heard of a change after ${told} ms`);
    await world.restart();
    await hears("anew");
    same(device.news.filter(({ startsOver }) => startsOver).length, 1, "how often it started over");
    same(device.news.slice(1).every(({ tasks }) => tasks.length > 0), true, "that no news are empty");

    // A server that is about to stop lets nobody wait.
    await device.stop();
    const nothing = JSON.stringify({ tasks: [], deleted: [], next: device.next, has_more: false });
    const headers = { "Content-Type": "application/json" };
    const patient = new Device(await clientOf(world, user)).start({ since: device.next });
    await world.fault({ method: "GET", times: 4, what: { status: 200, headers, body: nothing } });
    await patient.until(() => patient.news.length === 1);
    const hammered = await lasted(async () => {
      const { data } = await writer.create({ title: "at last" });
      await patient.until(() => patient.tasks.has(present(data, "task").id));
    });
    // A quarter of a second at least, a half, and one; on a busy machine some of that is over before.
    must(hammered > 750, `it asked again and again, for ${hammered} ms`);
    await patient.stop();
  },

  async "a call that waits is not cut off, and a place that is left is free"(world) {
    const user = "waits";
    const client = await clientOf(world, user, { baseUrl: world.url, timeoutMs: 500, attempts: 1 });
    const since = present((await client.changes()).data, "answer").next;
    // The server has to see first that the device of the step before has left, and to log that.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // And two that ask for the same don't wait for each other.
    const call = async () => same((await client.changes({ since, wait: 2 })).data?.next, since, "where it goes on");
    const met = await reached(world, async () => {
      const took = await lasted(() => Promise.all([call(), call()]));
      must(took > 1900 && took < 3500, `two seconds took ${took} ms`);
    });
    same(met, ["listChanges 200", "listChanges 200"], "what reached the server");

    // Two may wait here. Whoever tries it takes a place as well, for a second.
    const isFull = async () => (await client.changes({ since: present((await client.changes()).data, "answer").next, wait: 1 })).response.status === 429;
    const fillsUp = async () => {
      for (const end = Date.now() + 20_000; !(await isFull()); await new Promise((resolve) => setTimeout(resolve, 500))) {
        must(Date.now() < end, "more than two wait");
      }
    };
    const impatient = await clientOf(world, user, { baseUrl: world.url, maxWaitMs: 300 });
    const devices = [new Device(impatient).start(), new Device(impatient).start()] as const;
    await fillsUp();
    // Whoever finds no place hears of changes by asking.
    const third = new Device(impatient).start({ since });
    await client.create({ title: "For three" });
    for (const device of [...devices, third]) await device.isInStep();
    await third.stop();
    await fillsUp();
    const took = await lasted(() => devices[0].stop());
    must(took < 200, `it went on for ${took} ms`);
    await new Promise((resolve) => setTimeout(resolve, 300));
    must(!(await isFull()), "the place of who has left is taken");
    await devices[1].stop();
    await new Promise((resolve) => setTimeout(resolve, 300));
    // Whoever leaves the loop asks no more.
    same(await reached(world, async () => {
      for await (const _ of client.follow()) break;
    }), ["listChanges 200"], "what reached the server");
  },

  async "what does not pass ends the following"(world) {
    const user = "ends";
    const ends = async (client: Taskpact, status: number, options?: FollowOptions) => {
      const error = await rejection((async () => {
        for await (const _ of client.follow(options));
      })(), `what is answered ${status}`);
      must(error instanceof ProblemError, `it is no ProblemError: ${error}`);
      same(error.response.status, status, "the status");
    };
    const nowhere = (async () => createTaskpact({ baseUrl: "http://", token: "x" }))();
    must(String(await rejection(nowhere, "an address that is none")).includes("`baseUrl`"), "it does not say what is wrong");
    const stale = [await world.staleToken(user), await world.staleToken(user, "2h")];
    await ends(createTaskpact({ baseUrl: world.url, token: () => stale.shift() }), 401);
    await ends(await clientOf(world, user, { userId: "somebody else" }), 403);
    await ends(await clientOf(world, user), 422, { limit: 0 });
    // Whoever starts over can't be told to.
    const client = await clientOf(world, user);
    const expired = JSON.stringify({ type: "/problems/changes-expired", title: "", status: 410, detail: "", request_id: "" });
    await world.fault({ method: "GET", times: 9, what: { status: 410, body: expired } });
    await ends(client, 410);
    await world.fault({ method: "GET", times: 0, what: "lose" });

    // It stays with its user, whoever signs in meanwhile.
    const tokens = [await world.token(user), await world.token("somebody else")];
    const shared = createTaskpact({ baseUrl: world.url, token: () => tokens.shift() });
    const users: string[] = [];
    const error = await rejection((async () => {
      for await (const { tasks } of shared.follow({ wait: 1 })) {
        users.push(...tasks.map(({ user_id }) => user_id));
        shared.forgetToken();
      }
    })(), "what was another user's");
    must(error instanceof ProblemError && isProblem(error.problem, "/problems/forbidden"), `it ended with ${error}`);
  },
};

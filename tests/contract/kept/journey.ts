// A client made of one version of the contract, which a later server has to keep. It knows as much as every version says.

import assert from "node:assert/strict";

/** What the journey wants to know about a task. A contract whose tasks have more is no worse. */
interface Task {
  id: string;
  title: string;
  description: string | null;
  completed: boolean;
  version: number;
}

/** What it wants to know about changes. */
interface Changes {
  tasks: Task[];
  deleted: { id: string }[];
  next: string;
  has_more: boolean;
}

type Answer<Data, Problem> = Promise<{ data?: Data | undefined; error?: Problem | undefined; response: Response }>;

/** What a generator made of the contract. */
interface Client<Problem> {
  create(title: string, key: string): Answer<Task, Problem>;
  list(limit: number, cursor?: string): Answer<Task[], Problem>;
  read(id: string): Answer<Task, Problem>;
  update(id: string, tag: string, description: string): Answer<Task, Problem>;
  toggle(id: string): Answer<Task, Problem>;
  delete(id: string): Answer<unknown, Problem>;
  changes(limit: number, since?: string): Answer<Changes, Problem>;
  /** What a person is told. */
  words(problem: Problem): string;
}

export async function journey<Problem>(client: Client<Problem>): Promise<void> {
  const done = async <Data>(answer: Answer<Data, Problem>): Promise<Data> => {
    const { data, error, response } = await answer;
    assert.ok(response.ok && data !== undefined, JSON.stringify(error));
    return data;
  };
  const refused = async (status: number, answer: Answer<unknown, Problem>): Promise<string> => {
    const { error, response } = await answer;
    assert.equal(response.status, status);
    assert.ok(error !== undefined);
    return client.words(error);
  };

  const ids: string[] = [];
  for (const title of ["Water the plants", "Feed the cat", "Ring the bell"]) {
    ids.unshift((await done(client.create(title, `"${title}"`))).id);
  }
  assert.equal((await done(client.create("Ring the bell", '"Ring the bell"'))).id, ids[0]);

  const seen: string[] = [];
  for (let page: Task[] | undefined; page === undefined || page.length === 2; seen.push(...page.map(({ id }) => id))) {
    page = await done(client.list(2, seen.at(-1)));
  }
  assert.deepEqual(seen, ids);

  let changes = await done(client.changes(2));
  const known = changes.tasks;
  while (changes.has_more) {
    changes = await done(client.changes(2, changes.next));
    known.push(...changes.tasks);
  }
  assert.deepEqual(known.map(({ id }) => id).reverse(), ids);

  const [id] = ids;
  assert.ok(id);
  const read = await client.read(id);
  const tag = read.response.headers.get("ETag");
  assert.ok(tag);
  assert.equal((await done(client.update(id, tag, "At noon"))).description, "At noon");
  assert.notEqual(await refused(412, client.update(id, tag, "At one")), "");
  assert.equal((await done(client.toggle(id))).completed, true);
  assert.deepEqual((await done(client.changes(2, changes.next))).tasks.map(({ id, version }) => [id, version]), [[id, 3]]);
  await client.delete(id);
  assert.deepEqual((await done(client.changes(2, changes.next))).deleted.map(({ id }) => id), [id]);
  assert.notEqual(await refused(410, client.changes(2, "yesterday")), "");
  assert.notEqual(await refused(404, client.read(id)), "");
  assert.match(await refused(422, client.create("", "nothing")), /title/);
}

const env = (name: string): string => (assert.ok(process.env[name], name), process.env[name]);
export const url = env("TASKPACT_URL");
export const token = env("TASKPACT_TOKEN");
export const user_id = env("TASKPACT_USER");

// Clients that others generate, with the package's fetch: each sends a request again whose answer was lost, and it takes
// effect once; a token that is refused is replaced; 304 is there to be seen.

import createClient from "openapi-fetch";
import { authorizing, isProblem, type paths, retrying } from "taskpact";
import * as heyApi from "./hey-api/index.js";
import { createClient as createHeyApi } from "./hey-api/client/index.js";
import type { World } from "./world.js";
import * as orval from "./orval.js";
import { use } from "./orval-fetch.js";

function same(given: unknown, expected: unknown, what: string): void {
  const [one, other] = [given, expected].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${what}: ${one}, not ${other}`);
}

export async function generated(world: World): Promise<void> {
  const user_id = "generated";
  const path = { user_id };
  const tokens = [await world.staleToken(user_id), await world.token(user_id)];
  let asked = 0;
  const fetch = retrying({ fetch: authorizing(() => tokens[asked++]) });

  const api = createClient<paths>({ baseUrl: world.faulty, fetch });
  await world.fault({ method: "POST", times: 1, what: "lose" });
  const first = await api.POST("/api/{user_id}/tasks", { params: { path }, body: { title: "openapi-fetch" } });
  same(first.data?.title, "openapi-fetch", "what openapi-fetch made");
  const header = { "If-None-Match": first.response.headers.get("ETag") ?? "" };
  const one = { path: { ...path, task_id: first.data?.id ?? "" } };
  const unchanged = await api.GET("/api/{user_id}/tasks/{task_id}", { params: { ...one, header } });
  same([unchanged.response.status, unchanged.data, unchanged.error], [304, undefined, undefined], "what has not changed");
  if (unchanged.error !== undefined) throw new Error("what has not changed is an error");

  const client = createHeyApi({ baseUrl: world.faulty, fetch });
  await world.fault({ method: "POST", times: 1, what: "lose" });
  same((await heyApi.createTask({ client, path, body: { title: "hey-api" } })).data?.title, "hey-api", "what hey-api made");
  same((await heyApi.getTask({ client, ...one, headers: header })).response.status, 304, "what has not changed");
  await world.fault({ method: "PATCH", times: 1, what: "lose" });
  same((await heyApi.toggleTaskCompletion({ client, ...one })).data?.completed, true, "what hey-api flipped");
  const late = await heyApi.updateTask({ client, ...one, headers: { "If-Match": '"1"' }, body: { title: "late" } });
  same(isProblem(late.error, "/problems/version-mismatch") && late.error.current.version, 2, "what is there now");

  use(world.faulty, fetch);
  await world.fault({ method: "POST", times: 1, what: "lose" });
  same((await orval.createTask(user_id, { title: "orval" })).status, 201, "orval's answer");
  const tag = (await orval.getTask(user_id, one.path.task_id)).headers.get("ETag") ?? "";
  same((await orval.getTask(user_id, one.path.task_id, { "If-None-Match": tag })).status, 304, "what has not changed");

  const list = await orval.listTasks(user_id);
  same(list.status === 200 && list.data.map(({ title }) => title), ["orval", "hey-api", "openapi-fetch"], "the tasks there are");
  same(asked, 2, "how often was asked for a token");
}

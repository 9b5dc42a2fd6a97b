// The journey with hey-api and zod: whatever comes is held against the schemas that the contract had.

import { z } from "zod";
import * as api from "./generated/hey-api";
import { createClient } from "./generated/hey-api/client";
import { zAnyProblem } from "./generated/hey-api/zod.gen";
import { journey, token, url, user_id } from "./journey";

const TYPES: string[] = zAnyProblem.options.flatMap(({ shape }) => shape.type.options);
const client = createClient({ baseUrl: url, auth: token });
const path = { user_id };
const one = (task_id: string) => ({ client, path: { user_id, task_id } });

await journey<unknown>({
  create: (title, key) => api.createTask({ client, path, headers: { "Idempotency-Key": key }, body: { title } }),
  list: (limit, cursor) => api.listTasks({ client, path, query: { limit, ...(cursor === undefined ? {} : { cursor }) } }),
  read: (id) => api.getTask(one(id)),
  update: (id, tag, description) => api.updateTask({ ...one(id), headers: { "If-Match": tag }, body: { description } }),
  toggle: (id) => api.toggleTaskCompletion(one(id)),
  delete: (id) => api.deleteTask(one(id)),
  changes: (limit, since) => api.listChanges({ client, path, query: { limit, ...(since === undefined ? {} : { since }) } }),
  words: (problem) => {
    const { type, detail } = z.object({ type: z.string(), detail: z.string() }).parse(problem);
    if (!TYPES.includes(type)) return console.log(`unknown: ${type}`), detail;
    const known = zAnyProblem.parse(problem);
    return known.type === "/problems/invalid-request" ? known.errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join(", ") : detail;
  },
});

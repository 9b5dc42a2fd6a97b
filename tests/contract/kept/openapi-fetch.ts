// The journey by types alone: openapi-typescript and openapi-fetch.

import createClient from "openapi-fetch";
import type { components, paths } from "./generated/openapi-typescript";
import { journey, token, url, user_id } from "./journey";

const LIST = "/api/{user_id}/tasks";
const ONE = "/api/{user_id}/tasks/{task_id}";
const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const path = { user_id };
const one = (task_id: string) => ({ user_id, task_id });

await journey<components["schemas"]["AnyProblem"]>({
  create: (title, key) => api.POST(LIST, { params: { path, header: { "Idempotency-Key": key } }, body: { title } }),
  list: (limit, cursor) => api.GET(LIST, { params: { path, query: { limit, ...(cursor === undefined ? {} : { cursor }) } } }),
  read: (id) => api.GET(ONE, { params: { path: one(id) } }),
  update: (id, tag, description) => api.PUT(ONE, { params: { path: one(id), header: { "If-Match": tag } }, body: { description } }),
  toggle: (id) => api.PATCH(`${ONE}/complete`, { params: { path: one(id) } }),
  delete: (id) => api.DELETE(ONE, { params: { path: one(id) } }),
  changes: (limit, since) =>
    api.GET("/api/{user_id}/changes", { params: { path, query: { limit, ...(since === undefined ? {} : { since }) } } }),
  words: (problem) => {
    switch (problem.type) {
      case "/problems/invalid-request":
        return problem.errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join(", ");
      default:
        return problem.detail;
    }
  },
});

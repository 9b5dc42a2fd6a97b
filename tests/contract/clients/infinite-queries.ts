// TanStack's infinite queries, as hey-api's plugin and orval make them of `cursor`: they page to the end, and need nothing but
// a page to find the next one. `useInfiniteQuery` is this observer inside a component; without one it takes no browser.

import { InfiniteQueryObserver, QueryClient, type InfiniteData } from "@tanstack/react-query";
import { listTasksInfiniteOptions } from "./generated/hey-api/@tanstack/react-query.gen";
import { createClient } from "./generated/hey-api/client";
import { createTask, getListTasksInfiniteQueryOptions, type listTasksResponse } from "./generated/orval-query";
import { assert, exactly, ListError, present, Task, TITLES, token, url, user_id } from "./journey";

const ids: string[] = [];
for (const title of TITLES) {
  const created = await createTask(user_id, { title });
  assert.ok(created.status === 201);
  ids.unshift(created.data.id);
}

const limit = 2;
/** After the last task of a full page there may be another one. */
const next = (page: Task[]) => (page.length === limit ? page.at(-1)?.id : undefined);

/** What a list shows whose reader scrolls until there is no more. */
async function scrolled<Data, Refusal>(observer: {
  fetchNextPage(): Promise<{ hasNextPage: boolean; data: Data | undefined; error: Refusal | null }>;
}): Promise<Data> {
  for (;;) {
    const { hasNextPage, data, error } = await observer.fetchNextPage();
    assert.equal(error, null);
    if (!hasNextPage) return present(data, "page");
  }
}
const sizes = (pages: Task[][]) => pages.map(({ length }) => length);
const queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });

const client = createClient({ baseUrl: url, auth: token });
const path = { user_id };
const heyApi = new InfiniteQueryObserver(queries, {
  ...listTasksInfiniteOptions({ client, path, query: { limit } }),
  initialPageParam: { path }, // No cursor: an empty one is not a task's id.
  getNextPageParam: (page) => (exactly<Task[]>()(page), next(page)),
});
exactly<ListError | null>()(heyApi.getCurrentResult().error);
const { pages } = await scrolled(heyApi);
exactly<Task[][]>()(pages);
assert.deepEqual(sizes(pages), [2, 2, 1]);
assert.deepEqual(pages.flat().map(({ id }) => id), ids);

// orval's pages are whole answers, which the status tells apart.
const has = (page: listTasksResponse) => (assert.ok(page.status === 200), page.data);
const orval = new InfiniteQueryObserver(
  queries,
  getListTasksInfiniteQueryOptions(user_id, { limit }, undefined, {
    query: { initialPageParam: undefined, getNextPageParam: (page) => (exactly<listTasksResponse>()(page), next(has(page))) },
  }),
);
const answers = await scrolled(orval);
exactly<InfiniteData<listTasksResponse, string | undefined>>()(answers);
const listed = answers.pages.map(has);
exactly<Task[][]>()(listed);
assert.deepEqual(sizes(listed), [2, 2, 1]);
assert.deepEqual(listed.flat().map(({ id }) => id), ids);

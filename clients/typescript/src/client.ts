import createClient, { type Client, type FetchResponse, type MaybeOptionalInit } from "openapi-fetch";
import type { components, operations, paths } from "./contract.js";
import { follow, type FollowOptions, type News } from "./following.js";
import { ProblemError } from "./problem.js";
import { MAX_WAIT_MS, retrying, type RetryOptions } from "./retrying.js";
import { unlessAborted } from "./signals.js";
import { authorizing, type Token, TokenStore } from "./token.js";

export type Task = components["schemas"]["Task"];
export type NewTask = components["schemas"]["NewTask"];
export type TaskUpdate = components["schemas"]["TaskUpdate"];

export interface TaskpactOptions extends RetryOptions {
  /** Where the server is, such as `https://tasks.example.com`. */
  baseUrl: string;
  token: Token;
  /** The user's id for the paths. The token's subject, if left out. */
  userId?: string;
}

/** How an operation ends: with `data` or with an `error`, and in both cases with the `response`. */
export type Result<Operation extends keyof operations> = FetchResponse<operations[Operation], {}, `${string}/${string}`>;

/** What a request with `If-None-Match` may end with besides: `response.status` is 304. */
export interface NotModified {
  data?: never;
  error?: never;
  response: Response;
}

/** The paths that answer 304. */
type Conditional = { [Path in keyof paths]: paths[Path] extends { get: { responses: { 304: unknown } } } ? Path : never }[keyof paths];

export type ConditionalGet = <
  Path extends Conditional,
  Init extends MaybeOptionalInit<paths[Path], "get"> & { params: { header: { "If-None-Match": string } } },
>(
  path: Path,
  init: Init,
) => Promise<FetchResponse<paths[Path]["get"], Init, `${string}/${string}`> | NotModified>;

export interface CallOptions {
  signal?: AbortSignal;
}

export interface KeyedCallOptions extends CallOptions {
  /** For a request that is to be sent again by hand, also after all attempts have failed: the same key each time. */
  idempotencyKey?: string;
}

type Query = NonNullable<operations["listTasks"]["parameters"]["query"]>;

type ChangesQuery = NonNullable<operations["listChanges"]["parameters"]["query"]>;

/** The client of openapi-fetch, and what is said more shortly about one user's tasks. */
export interface Taskpact extends Client<paths> {
  GET: ConditionalGet & Client<paths>["GET"];

  list(query?: Query, options?: CallOptions): Promise<Result<"listTasks">>;
  /** All tasks, page by page, the newest first. Throws a `ProblemError` if a page can't be had. */
  allTasks(options?: Pick<Query, "status"> & CallOptions & { pageSize?: number }): AsyncGenerator<Task, void, undefined>;
  create(task: NewTask, options?: KeyedCallOptions): Promise<Result<"createTask">>;
  get(id: string, options?: CallOptions): Promise<Result<"getTask">>;
  /**
   * Changes the task, if it still has the version that it has here; else the error is a `/problems/version-mismatch`, with
   * the task as it is now. That may be the change itself, where its answer was lost and the request sent again.
   */
  update(task: Pick<Task, "id" | "version">, change: TaskUpdate, options?: CallOptions): Promise<Result<"updateTask">>;
  remove(id: string, options?: CallOptions): Promise<Result<"deleteTask">>;
  complete(id: string, options?: CallOptions): Promise<Result<"toggleTaskCompletion">>;
  reopen(id: string, options?: CallOptions): Promise<Result<"toggleTaskCompletion">>;
  toggle(id: string, options?: KeyedCallOptions): Promise<Result<"toggleTaskCompletion">>;

  /** What has changed since `since`, the `next` of the call before: one request. `follow` is all of it. */
  changes(query?: ChangesQuery, options?: CallOptions): Promise<Result<"listChanges">>;
  /**
   * All changes of the user's tasks, as they come, for whoever keeps tasks of their own. Apply each news, and keep its `next` with
   * it, in one transaction: the next time, that is the `since`. `startsOver` says that the news replace what there was; it comes
   * first without `since`, and later where the server can't tell what was missed.
   *
   * The first news come at once, if only to say that there are none; then the server is asked to wait for the next ones. However
   * long it can't be reached or refuses (429, 5xx), this goes on, and waits longer each time, up to `maxWaitMs`, or as long as
   * `Retry-After` says. It throws a `ProblemError` for what does not pass, such as a token that is refused, and ends when
   * `signal` aborts, with its reason, or when the loop is left. It follows one user: end it at the sign-out.
   */
  follow(options?: FollowOptions): AsyncGenerator<News, never, undefined>;
  /** For the sign-out: the next request asks for a token anew. */
  forgetToken(): void;
}

/** Else Chromium, for its cache, lets a call wait for the answer to another tab's that is the same. */
const UNSHARED = { cache: "no-store" } as const;

export function createTaskpact({ baseUrl, token, userId, fetch, ...retries }: TaskpactOptions): Taskpact {
  // Else each request would fail as if there were no network.
  if (!URL.canParse(baseUrl, globalThis.location?.href)) throw new TypeError(`\`baseUrl\` is no address: ${baseUrl}`);
  const tokens = new TokenStore(token);
  const send = authorizing(tokens, fetch);
  const client: Client<paths> = createClient<paths>({ baseUrl, fetch: retrying({ ...retries, fetch: send }) });
  // `follow` repeats by itself.
  const once = createClient<paths>({ baseUrl, fetch: retrying({ ...retries, attempts: 1, fetch: send }) });

  async function user({ signal }: CallOptions = {}): Promise<{ user_id: string }> {
    const user_id = userId ?? (await (signal ? unlessAborted(tokens.subject(), signal) : tokens.subject()));
    if (user_id === undefined) throw new Error("whose tasks? There is no `userId`, and no token with a subject (`sub`)");
    return { user_id };
  }
  const one = async (task_id: string, options?: CallOptions) => ({ ...(await user(options)), task_id });
  const key = (idempotencyKey: string | undefined) => (idempotencyKey === undefined ? {} : { header: { "Idempotency-Key": idempotencyKey } });

  const list: Taskpact["list"] = async (query = {}, options) =>
    client.GET("/api/{user_id}/tasks", { ...options, params: { path: await user(options), query } });
  const setCompleted = async (id: string, body: { completed?: boolean }, { idempotencyKey, ...options }: KeyedCallOptions = {}) =>
    client.PATCH("/api/{user_id}/tasks/{task_id}/complete", { ...options, params: { path: await one(id, options), ...key(idempotencyKey) }, body });

  return {
    ...client,
    // The same function: its own type does not know that it may give neither data nor an error.
    GET: client.GET as Taskpact["GET"],
    list,
    async *allTasks({ status, pageSize, ...options } = {}) {
      const query: Query = { ...(status && { status }), ...(pageSize !== undefined && { limit: pageSize }) };
      for (;;) {
        const { data, error, response } = await list(query, options);
        if (data === undefined) throw new ProblemError(error, response);
        yield* data;
        const cursor = response.headers.get("Next-Cursor");
        if (cursor === null) return;
        query.cursor = cursor;
      }
    },
    create: async (body, { idempotencyKey, ...options } = {}) =>
      client.POST("/api/{user_id}/tasks", { ...options, params: { path: await user(options), ...key(idempotencyKey) }, body }),
    get: async (id, options) => client.GET("/api/{user_id}/tasks/{task_id}", { ...options, params: { path: await one(id, options) } }),
    update: async ({ id, version }, body, options) =>
      client.PUT("/api/{user_id}/tasks/{task_id}", {
        ...options,
        params: { path: await one(id, options), header: { "If-Match": `"${version}"` } },
        body,
      }),
    remove: async (id, options) => client.DELETE("/api/{user_id}/tasks/{task_id}", { ...options, params: { path: await one(id, options) } }),
    complete: (id, options) => setCompleted(id, { completed: true }, options),
    reopen: (id, options) => setCompleted(id, { completed: false }, options),
    toggle: (id, options) => setCompleted(id, {}, options),
    changes: async (query = {}, options) =>
      client.GET("/api/{user_id}/changes", { ...options, ...UNSHARED, params: { path: await user(options), query } }),
    follow(options = {}) {
      // Whoever signs in later is somebody else.
      let path: { user_id: string } | undefined;
      const ask: Parameters<typeof follow>[0] = async (query, signal) =>
        once.GET("/api/{user_id}/changes", { params: { path: (path ??= await user({ signal })), query }, signal, ...UNSHARED });
      return follow(ask, options, retries.maxWaitMs ?? MAX_WAIT_MS);
    },
    forgetToken: () => tokens.forget(),
  };
}

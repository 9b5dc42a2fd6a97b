// The client of Taskpact. `createTaskpact` has all of it; `retrying` and `authorizing` give the same to any client that takes
// a `fetch`.

export { createTaskpact } from "./client.js";
export type {
  CallOptions, ConditionalGet, KeyedCallOptions, NewTask, NotModified, Result, Task, Taskpact, TaskpactOptions, TaskUpdate,
} from "./client.js";
export type { components, operations, paths } from "./contract.js";
export type { Changes, FollowOptions, News } from "./following.js";
export { isProblem, ProblemError } from "./problem.js";
export type { AnyProblem } from "./problem.js";
export { retrying } from "./retrying.js";
export type { RetryOptions } from "./retrying.js";
export { authorizing, TokenStore } from "./token.js";
export type { Token } from "./token.js";

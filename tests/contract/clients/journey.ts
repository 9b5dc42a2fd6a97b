// What the three round trips share: the contract as a frontend would write it down by hand, to which every generator's
// types have to be identical, and how the program says that something is not as it should be.

import assert from "node:assert/strict";

export interface Task {
  id: string;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  completed_at: string | null;
  created_at: string;
  updated_at: string;
  version: number;
}

export interface NewTask {
  title: string;
  description?: string | null;
  completed?: boolean;
}

export interface TaskUpdate {
  title?: string;
  description?: string | null;
  completed?: boolean;
}

export interface TaskCompletion {
  completed?: boolean;
}

export interface Changes {
  tasks: Task[];
  deleted: { id: string; deleted_at: string }[];
  next: string;
  has_more: boolean;
}

export interface Health {
  status: "ok";
  version: string;
  commit: string;
}

/** What every problem says. */
interface Said {
  title: string;
  detail: string;
  request_id: string;
}

export interface MalformedRequestProblem extends Said {
  type: "/problems/malformed-request";
  status: 400;
}

export interface MalformedBodyProblem extends Said {
  type: "/problems/malformed-body";
  status: 400;
}

export interface UnauthorizedProblem extends Said {
  type: "/problems/unauthorized";
  status: 401;
}

export interface ForbiddenProblem extends Said {
  type: "/problems/forbidden";
  status: 403;
}

export interface NoSuchTaskProblem extends Said {
  type: "/problems/no-such-task";
  status: 404;
}

export interface NoSuchPathProblem extends Said {
  type: "/problems/no-such-path";
  status: 404;
}

export interface MethodNotAllowedProblem extends Said {
  type: "/problems/method-not-allowed";
  status: 405;
}

export interface IdempotencyKeyInUseProblem extends Said {
  type: "/problems/idempotency-key-in-use";
  status: 409;
}

export interface ChangesExpiredProblem extends Said {
  type: "/problems/changes-expired";
  status: 410;
}

export interface VersionMismatchProblem extends Said {
  type: "/problems/version-mismatch";
  status: 412;
  current: Task;
}

export interface BodyTooLargeProblem extends Said {
  type: "/problems/body-too-large";
  status: 413;
}

export interface RequestTimeoutProblem extends Said {
  type: "/problems/request-timeout";
  status: 408;
}

export interface UriTooLongProblem extends Said {
  type: "/problems/uri-too-long";
  status: 414;
}

export interface UnsupportedMediaTypeProblem extends Said {
  type: "/problems/unsupported-media-type";
  status: 415;
}

export interface Violation {
  in: "query" | "header" | "body";
  name?: string;
  pointer?: string;
  code: string;
  detail: string;
  limit?: number;
}

export interface InvalidRequestProblem extends Said {
  type: "/problems/invalid-request";
  status: 422;
  errors: Violation[];
}

export interface IdempotencyKeyReusedProblem extends Said {
  type: "/problems/idempotency-key-reused";
  status: 422;
}

export interface TooManyRequestsProblem extends Said {
  type: "/problems/too-many-requests";
  status: 429;
}

export interface HeadersTooLargeProblem extends Said {
  type: "/problems/headers-too-large";
  status: 431;
}

export interface InternalProblem extends Said {
  type: "/problems/internal";
  status: 500;
}

export interface UnavailableProblem extends Said {
  type: "/problems/unavailable";
  status: 503;
}

export type AnyProblem =
  | MalformedRequestProblem
  | MalformedBodyProblem
  | UnauthorizedProblem
  | ForbiddenProblem
  | NoSuchTaskProblem
  | NoSuchPathProblem
  | MethodNotAllowedProblem
  | RequestTimeoutProblem
  | IdempotencyKeyInUseProblem
  | ChangesExpiredProblem
  | VersionMismatchProblem
  | BodyTooLargeProblem
  | UriTooLongProblem
  | UnsupportedMediaTypeProblem
  | InvalidRequestProblem
  | IdempotencyKeyReusedProblem
  | TooManyRequestsProblem
  | HeadersTooLargeProblem
  | InternalProblem
  | UnavailableProblem;

// What each operation is refused with, and nothing else.
export type HealthError = InternalProblem;
export type ReadinessError = InternalProblem | UnavailableProblem;
export type ListError =
  | UnauthorizedProblem
  | ForbiddenProblem
  | InvalidRequestProblem
  | TooManyRequestsProblem
  | InternalProblem
  | UnavailableProblem;
export type ReadError = ListError | NoSuchTaskProblem;
export type ChangesError = ListError | ChangesExpiredProblem;
export type DeleteError = ReadError | VersionMismatchProblem;
export type UpdateError =
  | DeleteError
  | MalformedBodyProblem
  | RequestTimeoutProblem
  | BodyTooLargeProblem
  | UnsupportedMediaTypeProblem;
export type CompleteError = UpdateError | IdempotencyKeyInUseProblem | IdempotencyKeyReusedProblem;
export type CreateError =
  | ListError
  | MalformedBodyProblem
  | RequestTimeoutProblem
  | IdempotencyKeyInUseProblem
  | BodyTooLargeProblem
  | UnsupportedMediaTypeProblem
  | IdempotencyKeyReusedProblem;

/** Whether two types are one: `any`, `unknown`, an optional or a nullable field on one side only make them differ. */
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles only if the value's type, as the generator made it, is exactly `Expected`. */
export const exactly =
  <Expected>() =>
  <Given>(_value: Given & (Same<Given, Expected> extends true ? unknown : never)): void => {};

/** Compiles only for `true`. */
export const is = <_ extends true>(): void => {};

/**
 * The end of a `switch` over kinds of problems. It compiles only where no kind is left that the contract has, and stands for
 * those that it will have: a client outlives the contract that it was made from.
 */
export const ofAnotherKind = (problem: never): Said => problem;

/** What a frontend says to a person about any problem. */
export function words(problem: AnyProblem): string {
  switch (problem.type) {
    case "/problems/invalid-request":
      return problem.errors.map(({ name, pointer, code }) => `${name ?? pointer} ${code}`).join(", ");
    case "/problems/unauthorized":
      return "Sign in.";
    case "/problems/forbidden":
    case "/problems/no-such-task":
    case "/problems/no-such-path":
      return "There is nothing here.";
    case "/problems/version-mismatch":
      return `Somebody was faster: ${problem.current.description}`;
    case "/problems/idempotency-key-in-use":
    case "/problems/unavailable":
      return "Try again.";
    case "/problems/malformed-request":
    case "/problems/malformed-body":
    case "/problems/method-not-allowed":
    case "/problems/request-timeout":
    case "/problems/body-too-large":
    case "/problems/uri-too-long":
    case "/problems/unsupported-media-type":
    case "/problems/idempotency-key-reused":
    case "/problems/changes-expired":
    case "/problems/too-many-requests":
    case "/problems/headers-too-large":
    case "/problems/internal":
      return problem.detail;
    default:
      return ofAnotherKind(problem).detail;
  }
}

const tomorrows: unknown = { type: "/problems/quota-exceeded", title: "Quota exceeded", status: 429, detail: "That was much.", request_id: "1" };
assert.equal(words(tomorrows as AnyProblem), "That was much.");

/** Ends the program unless the problem is of this kind, and has the same status in its body as in its head. */
export function refused(problem: AnyProblem | undefined, status: number, type: AnyProblem["type"]): void {
  assert.ok(problem, `expected ${type}`);
  assert.equal(problem.type, type);
  assert.equal(problem.status, status);
  assert.notEqual(words(problem), "");
}

/** For what has to be there. */
export function present<T>(value: T | undefined | null, what: string): T {
  assert.ok(value !== undefined && value !== null, `there is no ${what}`);
  return value;
}

/** Of two that raced with the same entity tag, the one that lost. */
export function loser<T extends { status: number }>(racers: [T, T]): T {
  assert.deepEqual(racers.map(({ status }) => status).sort(), [200, 412]);
  return present(racers.find(({ status }) => status === 412), "loser");
}

/** What a device has that follows the changes, and how far it has come. */
export class Device {
  since: string | undefined;
  readonly #tasks = new Map<string, Task>();

  apply({ tasks, deleted, next }: Changes): void {
    for (const task of tasks) this.#tasks.set(task.id, task);
    for (const { id } of deleted) this.#tasks.delete(id);
    this.since = next;
  }

  /** Calls until there is no more to be told. */
  async follow(told: () => Promise<Changes>): Promise<void> {
    for (let hasMore = true; hasMore; ) {
      const changes = await told();
      this.apply(changes);
      hasMore = changes.has_more;
    }
  }

  /** Of its tasks, the newest first. */
  ids(): string[] {
    return [...this.#tasks.keys()].sort().reverse();
  }
}

const env = (name: string): string => present(process.env[name], name);
export const url = env("TASKPACT_URL");
export const token = env("TASKPACT_TOKEN");
export const user_id = env("TASKPACT_USER");
export const TITLES = ["Water the plants", "Feed the cat", "Ring the bell", "Mend the fence", "Sweep the stairs"];
export { assert };

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

export interface Health {
  status: "ok";
}

export interface Problem {
  type:
    | "/problems/invalid-parameter"
    | "/problems/malformed-body"
    | "/problems/unauthorized"
    | "/problems/forbidden"
    | "/problems/no-such-task"
    | "/problems/no-such-path"
    | "/problems/method-not-allowed"
    | "/problems/idempotency-key-in-use"
    | "/problems/version-mismatch"
    | "/problems/body-too-large"
    | "/problems/unsupported-media-type"
    | "/problems/idempotency-key-reused"
    | "/problems/internal"
    | "/problems/unavailable";
  title: string;
  status: number;
  detail: string;
  request_id: string;
}

export interface Violation {
  pointer: string;
  code: string;
  detail: string;
}

export interface ValidationProblem {
  type: "/problems/invalid-body";
  title: string;
  status: number;
  detail: string;
  request_id: string;
  errors: Violation[];
}

export type AnyProblem = Problem | ValidationProblem;

/** Whether two types are one: `any`, `unknown`, an optional or a nullable field on one side only make them differ. */
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles only if the value's type, as the generator made it, is exactly `Expected`. */
export const exactly =
  <Expected>() =>
  <Given>(_value: Given & (Same<Given, Expected> extends true ? unknown : never)): void => {};

/** Compiles only for `true`. */
export const is = <_ extends true>(): void => {};

/** What a frontend does with a problem: the `switch` compiles only while it knows every kind. */
export function words(problem: AnyProblem): string {
  switch (problem.type) {
    case "/problems/invalid-body":
      return problem.errors.map(({ pointer, code }) => `${pointer} ${code}`).join(", ");
    case "/problems/unauthorized":
      return "Sign in.";
    case "/problems/forbidden":
    case "/problems/no-such-task":
    case "/problems/no-such-path":
      return "There is nothing here.";
    case "/problems/version-mismatch":
      return "Somebody was faster.";
    case "/problems/idempotency-key-in-use":
    case "/problems/unavailable":
      return "Try again.";
    case "/problems/invalid-parameter":
    case "/problems/malformed-body":
    case "/problems/method-not-allowed":
    case "/problems/body-too-large":
    case "/problems/unsupported-media-type":
    case "/problems/idempotency-key-reused":
    case "/problems/internal":
      return problem.detail;
    default:
      return problem satisfies never;
  }
}

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

const env = (name: string): string => present(process.env[name], name);
export const url = env("TASKPACT_URL");
export const token = env("TASKPACT_TOKEN");
export const user_id = env("TASKPACT_USER");
export const TITLES = ["Water the plants", "Feed the cat", "Ring the bell", "Mend the fence", "Sweep the stairs"];
export { assert };

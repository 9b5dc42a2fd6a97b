// What the steps are made with: the world that they are taken in, and how they say that something is not as it should be.

import { createTaskpact } from "taskpact";

/** What happens on the way to the next requests with this method, so many times. */
export interface Fault {
  method: string;
  times: number;
  /** The answer is lost, it breaks off halfway, it never comes, or it is one of the proxy's own. */
  what: "lose" | "halve" | "stall" | { status: number; headers?: Record<string, string>; body?: string };
}

export interface World {
  /** The server; the server behind what makes faults; a server that lets a user ask once a second. */
  url: string;
  faulty: string;
  limited: string;
  /** A token of the first server, of the last, and of one that is not there: it looks valid, and is refused. */
  token(user: string, ttl?: string): Promise<string>;
  limitedToken(user: string): Promise<string>;
  staleToken(user: string, ttl?: string): Promise<string>;
  fault(fault: Fault): Promise<void>;
  /** Deletes everything of this user's, on the first server, and lets that one begin anew. */
  erase(user: string): Promise<void>;
  restart(): Promise<void>;
  /** What reached the server, or the limited one: operation and status. */
  requests(at?: "limited"): Promise<string[]>;
  /** On PostgreSQL: a server, a token, and a key that is in use there for some seconds. Not in every world. */
  busy?(): Promise<{ url: string; token: string; key: string }>;
  /** Whether `fetch` streams a body. Not in Chromium over HTTP/1.1. */
  streams: boolean;
}

export function must(condition: unknown, complaint: string): asserts condition {
  if (!condition) throw new Error(complaint);
}

export function same(given: unknown, expected: unknown, what: string): void {
  const [one, other] = [given, expected].map((value) => JSON.stringify(value));
  must(one === other, `${what}: ${one}, not ${other}`);
}

export function present<T>(value: T | undefined, what: string): T {
  must(value !== undefined, `there is no ${what}`);
  return value;
}

export async function rejection(promise: Promise<unknown>, what: string): Promise<unknown> {
  const settled = await promise.then((value) => ({ value }), (error: unknown) => ({ error }));
  must("error" in settled, `${what} did not reject`);
  return settled.error;
}

export async function lasted(work: () => Promise<unknown>): Promise<number> {
  const since = performance.now();
  await work();
  return performance.now() - since;
}

/** What reaches the server while something is done. */
export async function reached(world: World, work: () => Promise<unknown>, at?: "limited"): Promise<string[]> {
  const before = (await world.requests(at)).length;
  await work();
  // A line of the log may come a moment after the answer.
  await new Promise((resolve) => setTimeout(resolve, 100));
  return (await world.requests(at)).slice(before);
}

/** A client of a user, with what is asked for tokens counted. */
export async function clientOf(world: World, user: string, options: Partial<Parameters<typeof createTaskpact>[0]> = {}) {
  const token = await world.token(user);
  return createTaskpact({ baseUrl: world.faulty, token, ...options });
}

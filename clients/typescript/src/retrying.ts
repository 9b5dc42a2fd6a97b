import { isProblem } from "./problem.js";
import { pause, within } from "./signals.js";

export interface RetryOptions {
  /** What sends each attempt. `globalThis.fetch`, if left out. */
  fetch?: typeof globalThis.fetch;
  /** How often a request is sent at most: 1 to 20, by default 5 times. */
  attempts?: number;
  /**
   * How long an attempt may take until its answer is there as a whole: up to 600,000, by default 20,000. For as long as a
   * request asks the server to `wait` for changes, it does not count.
   */
  timeoutMs?: number;
  /** How long to wait for the next attempt at most: up to 600,000, by default 30,000. */
  maxWaitMs?: number;
}

export const MAX_WAIT_MS = 30_000;
const KEY = "Idempotency-Key";

/**
 * A `fetch` that repeats requests that were not answered, or with 429, 502, 503 or 504, or with 409 because the same request
 * is still being served. What would take effect twice is sent with an `Idempotency-Key`, the same one with each attempt.
 *
 * It waits no less than `Retry-After` says; if that is more than `maxWaitMs`, the answer is handed on. An abort by the
 * caller's signal ends it at once. It rejects as the last attempt does. Answers are read as a whole: one that breaks off
 * halfway is lost as well, and a body does not stream.
 */
export function retrying({ fetch, attempts = 5, timeoutMs = 20_000, maxWaitMs = MAX_WAIT_MS }: RetryOptions = {}): typeof globalThis.fetch {
  bounded({ attempts }, 1, 20);
  bounded({ timeoutMs }, 1, 600_000);
  bounded({ maxWaitMs }, 0, 600_000);
  return async (input, init) => {
    const send = fetch ?? globalThis.fetch;
    const request = new Request(input, init);
    const { method, headers, signal } = request;
    if (takesKey(request) && !headers.has(KEY)) headers.set(KEY, newKey());
    // A second time might do harm: to what somebody else has written in between, or without a key for it.
    const once = (method === "PATCH" && !headers.has(KEY)) || (method === "PUT" && !headers.has("If-Match"));
    const most = once ? 1 : attempts;
    const ms = timeoutMs + waitMs(request);
    for (let attempt = 1; ; attempt++) {
      let seconds = 0;
      try {
        const answer = await within(ms, async (signal) => whole(await send(new Request(request.clone(), { signal }))), signal);
        if (attempt >= most || !(await isTransient(answer))) return answer;
        seconds = retryAfter(answer);
        if (seconds * 1000 > maxWaitMs) return answer;
      } catch (error) {
        if (attempt >= most || !isLost(error)) throw error;
      }
      await backOff(attempt, seconds, maxWaitMs, signal);
    }
  };
}

/** Waits after so many failures, and no less than `seconds`. After an abort it rejects at once. */
export async function backOff(failures: number, seconds: number, maxWaitMs: number, signal: AbortSignal): Promise<void> {
  // Clients that failed together do not all come back together.
  const ms = Math.min(maxWaitMs, 500 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
  await pause(Math.max(seconds * 1000, ms), signal);
}

function bounded(option: Record<string, number>, min: number, max: number): void {
  for (const [name, value] of Object.entries(option)) {
    if (!(value >= min && value <= max)) throw new RangeError(`${name} must be ${min} to ${max}, not ${value}`);
  }
}

/** Whether the contract has an `Idempotency-Key` for it. */
const takesKey = ({ method, url }: Request) => method === "POST" || (method === "PATCH" && new URL(url).pathname.endsWith("/complete"));

/** How long the server is asked to wait before it answers, as far as it waits at all. */
function waitMs({ url }: Request): number {
  const { pathname, searchParams } = new URL(url);
  return pathname.endsWith("/changes") ? Math.min(30, Math.max(0, Number(searchParams.get("wait")) || 0)) * 1000 : 0;
}

/** Not `crypto.randomUUID`, which pages have over HTTPS and on localhost only. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The answer when all of it has come. */
async function whole(answer: Response): Promise<Response> {
  if (answer.status === 304) {
    // There is no body, and this says so: openapi-fetch would make an error of the empty text.
    const headers = new Headers(answer.headers);
    headers.set("Content-Length", "0");
    return new Response(null, { status: 304, statusText: answer.statusText, headers });
  }
  return answer.body === null || answer.status === 204 ? answer : new Response(await answer.arrayBuffer(), answer);
}

async function isTransient(answer: Response): Promise<boolean> {
  if (answer.status !== 409) return [429, 502, 503, 504].includes(answer.status);
  const problem: unknown = await answer.clone().json().catch(() => undefined);
  return isProblem(problem, "/problems/idempotency-key-in-use");
}

/** Whether no answer came: what `fetch` rejects with for a broken connection, or our own time-out. */
export const isLost = (error: unknown) => error instanceof Error && ["TypeError", "TimeoutError"].includes(error.name);

/** What `Retry-After` says, in seconds from now: a number, or a date. An hour at most: timers don't count for ever. */
export function retryAfter({ headers }: Response): number {
  const value = headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Math.min(3600, Math.max(0, seconds || 0));
}

import type { FetchResponse } from "openapi-fetch";
import type { components, operations } from "./contract.js";
import { isProblem, ProblemError } from "./problem.js";
import { backOff, isLost, retryAfter } from "./retrying.js";

export type Changes = components["schemas"]["Changes"];

/** Changes to be applied. */
export interface News extends Changes {
  /**
   * Whether everything is told from the beginning: throw away the tasks that you have, and apply this, in one step. The rest may
   * come in the next news, which go on from here, also after a restart.
   */
  startsOver: boolean;
}

export interface FollowOptions {
  /** The `next` of the last news that were applied. Without it, everything is told from the beginning. */
  since?: string | null | undefined;
  /** For how long a request waits for a change, in seconds: 1 to 30, by default 25. A proxy on the way has to let it. */
  wait?: number;
  /** How many changes come at once, at most: 1 to 1,000, which is the default. */
  limit?: number;
  signal?: AbortSignal;
}

type Query = NonNullable<operations["listChanges"]["parameters"]["query"]>;
type Answer = FetchResponse<operations["listChanges"], {}, `${string}/${string}`>;

/** A request that was to wait and is answered sooner than this, with nothing new: its server is about to stop. */
const AT_ONCE_MS = 500;

/** What `Taskpact.follow` does. `ask` sends one request, once. */
export async function* follow(
  ask: (query: Query, signal: AbortSignal) => Promise<Answer>,
  { since, wait = 25, limit, signal = new AbortController().signal }: FollowOptions,
  maxWaitMs: number,
): AsyncGenerator<News, never, undefined> {
  let place = since ?? undefined;
  // Whether the caller has all there was. Until then it need not wait to hear how things stand.
  let isInStep = false;
  let failures = 0;
  for (;;) {
    let seconds = 0;
    const asked = performance.now();
    const query: Query = { ...(place !== undefined && { since: place }), ...(isInStep && { wait }), ...(limit !== undefined && { limit }) };
    const answer = await ask(query, signal).catch((error: unknown) => {
      if (!isLost(error)) throw error;
    });
    if (answer?.data) {
      const { data } = answer;
      if (!isInStep || data.next !== place) {
        const startsOver = place === undefined;
        [place, isInStep, failures] = [data.next, !data.has_more, 0];
        yield { ...data, startsOver };
        continue;
      }
      if (performance.now() - asked >= AT_ONCE_MS) {
        failures = 0;
        continue;
      }
    } else if (answer) {
      const { error, response } = answer;
      if (place !== undefined && isProblem(error, "/problems/changes-expired")) {
        [place, isInStep] = [undefined, false];
        continue;
      }
      if (response.status !== 429 && response.status < 500) throw new ProblemError(error, response);
      seconds = retryAfter(response);
    }
    // After an abort this rejects at once.
    await backOff(++failures, seconds, maxWaitMs, signal);
  }
}

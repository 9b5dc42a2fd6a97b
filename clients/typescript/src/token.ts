import { unlessAborted, within } from "./signals.js";

/** A token, or what asks for one: of the issuer, or of a route of the application. Without a session it gives none. */
export type Token = string | (() => Given | Promise<Given>);
type Given = string | null | undefined;

/** How long before its `exp` a token is no longer sent, and how long asking for one may take. */
const MARGIN_MS = 30_000;
const TIMEOUT_MS = 20_000;

/** Keeps a token until shortly before it expires, and asks for the next one once, however many requests wait for it. */
export class TokenStore {
  readonly #token: Token;
  #kept: string | undefined;
  /** When the kept one is replaced. */
  #until = 0;
  #asking: Promise<string | undefined> | undefined;

  constructor(token: Token) {
    // In JavaScript it may be a variable of the environment that is not set.
    if (typeof token !== "string" && typeof token !== "function") throw new TypeError("`token` is neither a token nor a function that asks for one");
    this.#token = token;
  }

  /** The token to be sent now, or undefined if there is no session. Rejects as whoever is asked does. */
  async get(): Promise<string | undefined> {
    if (typeof this.#token === "string") return this.#token;
    if (this.#kept !== undefined && Date.now() < this.#until) return this.#kept;
    return (this.#asking ??= this.#ask(this.#token));
  }

  /** Whose token it is: its `sub`, if there is a token that has one. That holds also when it is about to expire. */
  async subject(): Promise<string | undefined> {
    const { sub } = claims(this.#kept ?? (await this.get()));
    return typeof sub === "string" ? sub : undefined;
  }

  /** Forgets the token: at sign-out, or only if it is this one, which was refused. */
  forget(refused?: string): void {
    if (refused !== undefined && refused !== this.#kept) return;
    this.#kept = undefined;
    // What is on its way belongs to the session before. Whoever waits for it is given it, but it is not kept.
    this.#asking = undefined;
  }

  #ask(token: () => Given | Promise<Given>): Promise<string | undefined> {
    const asking = within(TIMEOUT_MS, async () => (await token()) || undefined).then(
      (given) => {
        if (this.#asking === asking) {
          [this.#kept, this.#until, this.#asking] = [given, until(given), undefined];
        }
        return given;
      },
      (error: unknown) => {
        if (this.#asking === asking) this.#asking = undefined;
        throw error;
      },
    );
    return asking;
  }
}

/**
 * A `fetch` that sends a token with each request, unless the request has an `Authorization` of its own. If the answer is 401,
 * the token is forgotten, another one is asked for, once, and the request is sent again, once.
 */
export function authorizing(token: Token | TokenStore, fetch?: typeof globalThis.fetch): typeof globalThis.fetch {
  const tokens = token instanceof TokenStore ? token : new TokenStore(token);
  return async (input, init) => {
    const send = fetch ?? globalThis.fetch;
    const request = new Request(input, init);
    if (request.headers.has("Authorization")) return send(request);

    const first = await unlessAborted(tokens.get(), request.signal);
    const answer = await send(withToken(request.clone(), first));
    if (answer.status !== 401 || first === undefined) return answer;
    tokens.forget(first);
    const second = await unlessAborted(tokens.get(), request.signal);
    if (second === undefined || second === first) return answer;
    await answer.body?.cancel();
    const last = await send(withToken(request, second));
    if (last.status === 401) tokens.forget(second);
    return last;
  };
}

/** When a token that is given now is to be replaced: before its `exp`, but one that lives for a moment is used, too. */
function until(token: string | undefined): number {
  const { exp } = claims(token);
  if (typeof exp !== "number") return Infinity;
  return exp * 1000 - Math.min(MARGIN_MS, (exp * 1000 - Date.now()) / 2);
}

function withToken(request: Request, token: string | undefined): Request {
  if (token !== undefined) request.headers.set("Authorization", `Bearer ${token}`);
  return request;
}

/** What a token says, unverified: whose it is and until when. Nothing, if it is no JWT. */
function claims(token: string | undefined): { sub?: unknown; exp?: unknown } {
  try {
    const payload = atob(token?.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/") ?? "");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (char) => char.charCodeAt(0)))) ?? {};
  } catch {
    return {};
  }
}

// What sends orval's requests: where to, and by which fetch, it is told.

let base = "";
let send: typeof fetch = fetch;

export function use(url: string, fetch: typeof globalThis.fetch): void {
  [base, send] = [url, fetch];
}

export async function orvalFetch<T>(path: string, options: RequestInit): Promise<T> {
  const response = await send(new URL(path, base), options);
  const text = await response.text();
  return { data: text === "" ? undefined : JSON.parse(text), status: response.status, headers: response.headers } as T;
}

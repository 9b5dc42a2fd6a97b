// What sends orval's requests: it knows the server and the token.

import { token, url } from "./journey";

export async function send<T>(path: string, options: RequestInit): Promise<T> {
  const response = await fetch(new URL(path, url), { ...options, headers: { Authorization: `Bearer ${token}`, ...options.headers } });
  const text = await response.text();
  return { data: text === "" ? undefined : JSON.parse(text), status: response.status, headers: response.headers } as T;
}

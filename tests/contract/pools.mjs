// HTTP clients that people have, with pools of connections. What the server does with the rest of a request that it
// refuses early decides over the next request on the same connection: it must neither be lost, nor be done twice, nor be
// read from the middle of the body before it.

import { deepEqual } from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { delimiter, join } from "node:path";
import { folder, freePort, here, must, python, run, serve, start, within } from "./surroundings.mjs";

const scripts = join(here, "pools");
const ROUNDS = 12;

const json = (bytes) => JSON.stringify({ title: "Refused", description: "x".repeat(bytes) });

/** What is refused, by status and type; each time a valid POST follows. */
function refusals(user, token) {
  const tasks = `/api/${user}/tasks`;
  const bearer = { Authorization: `Bearer ${token}` };
  const headers = { ...bearer, "Content-Type": "application/json" };
  const post = { method: "POST", path: tasks, headers };
  return [
    { name: "401 with a body of 60 kB", ...post, headers: { "Content-Type": "application/json" }, body: json(60_000), status: 401, type: "/problems/unauthorized" },
    { name: "403 with a body", ...post, path: "/api/somebody-else/tasks", body: json(1000), status: 403, type: "/problems/forbidden" },
    { name: "404 on an unknown path with a body", ...post, path: "/nowhere", body: json(1000), status: 404, type: "/problems/no-such-path" },
    { name: "405 with a body", ...post, method: "PUT", body: json(1000), status: 405, type: "/problems/method-not-allowed" },
    { name: "413 with 100 kB", ...post, body: json(100_000), status: 413, type: "/problems/body-too-large" },
    { name: "413 with 5 MB", ...post, body: json(5_000_000), status: 413, type: "/problems/body-too-large" },
    { name: "415", ...post, headers: { ...bearer, "Content-Type": "text/plain" }, body: json(1000), status: 415, type: "/problems/unsupported-media-type" },
    { name: "422 for a query parameter", method: "GET", path: `${tasks}?limit=0`, headers: bearer, status: 422, type: "/problems/invalid-request" },
    { name: "400 for broken JSON", ...post, body: '{"title": "Water', status: 400, type: "/problems/malformed-body" },
  ];
}

const pythons = () => join(python("pools", join(scripts, "requirements.txt")), "bin/python");

/** The clients: what runs them, which coding of a long list they ask for, and what they say of a body that is not there. */
const CLIENTS = [
  { name: "undici", script: "with_undici.mjs" },
  { name: "undici through HAProxy", script: "with_undici.mjs", proxied: true },
  { name: "axios", script: "with_axios.mjs", completesAs: "application/x-www-form-urlencoded" },
  { name: "requests", script: "with_requests.py", encoding: "gzip" },
  { name: "http.client", script: "with_http_client.py" },
  { name: "aiohttp", script: "with_aiohttp.py", encoding: "gzip", completesAs: "application/octet-stream" },
];

/** One client, from its first refusal to its list. */
async function client(server, { name, script, proxied, encoding, completesAs }) {
  const user = `user of ${name}`;
  const token = server.token(user);
  const path = `/api/${encodeURIComponent(user)}/tasks`;
  const headers = { Authorization: `Bearer ${token}` };
  const refused = refusals(encodeURIComponent(user), token);
  const plan = join(folder(), "plan.json");
  writeFileSync(plan, JSON.stringify({
    url: proxied ? await haproxy(server) : server.url,
    rounds: ROUNDS,
    refused,
    create: { method: "POST", path, headers: { ...headers, "Content-Type": "application/json" } },
    list: { method: "GET", path, headers },
    complete: { method: "PATCH", path: `${path}/{task_id}/complete`, headers },
  }));

  // The probe is what waits for HAProxy.
  const requests = () => server.requests().filter(({ operation }) => operation !== "getHealth").length;
  const before = requests();
  const program = script.endsWith(".py") ? pythons() : process.execPath;
  const { status, stdout, said } = run(program, [script], {
    cwd: scripts,
    env: { PLAN: plan, NO_PROXY: "127.0.0.1", no_proxy: "127.0.0.1", PYTHONDONTWRITEBYTECODE: "1" },
  });
  must(status === 0, said);
  const met = JSON.parse(stdout);

  const expected = Array.from({ length: ROUNDS }, (_, at) => refused.map(({ name }) => `round ${at + 1}, ${name}`)).flat();
  const now = await read(`${server.url}${path}`, headers);
  const titles = now.map(({ title }) => title);
  const lost = expected.filter((title) => !titles.includes(title));
  const twice = titles.filter((title, at) => titles.indexOf(title) !== at);
  must(now.length === expected.length && lost.length === 0, `${now.length} tasks for ${expected.length} valid POSTs; lost: ${lost}; twice: ${twice}`);

  // That one was completed after the list was read.
  must(now[0].completed && !met.list[0].completed, "PATCH without a body did not complete the task");
  deepEqual(met.list.slice(1), now.slice(1));
  deepEqual({ ...met.list[0], ...changed(now[0]) }, now[0]);
  must((met.encoding ?? undefined) === encoding, `the list's coding is ${met.encoding}, not ${encoding}`);
  if (completesAs) must(met.completedAs === completesAs, `PATCH without a body was sent as ${met.completedAs}, not ${completesAs}`);

  // Else nothing was tried here.
  const sent = 2 * expected.length + 2;
  must(met.connections < expected.length, `${met.connections} connections for ${sent} requests: this is no pool`);
  const reached = () => requests() - before - 1;
  await within(5, () => reached() >= sent);
  must(reached() === sent, `${sent} requests were sent, but ${reached()} reached the server`);
  console.log(`${name}: ${sent} requests over ${met.connections} connections`);
}

const changed = ({ completed, completed_at, updated_at, version }) => ({ completed, completed_at, updated_at, version });

/** A list as it is: Node's own client asks for no coding. */
const read = (url, headers) =>
  new Promise((resolve, reject) =>
    get(url, { headers }, async (answer) => {
      const chunks = await answer.toArray();
      answer.headers["content-encoding"] ? reject(new Error("it came compressed, unasked")) : resolve(JSON.parse(Buffer.concat(chunks)));
    }).on("error", reject),
  );

/** HAProxy in front of the server: its address. */
async function haproxy(server) {
  const command = [...process.env.PATH.split(delimiter), "/usr/sbin"].map((path) => join(path, "haproxy")).find(existsSync);
  must(command, "There is no HAProxy: install it (Debian: apt-get install haproxy).");
  const port = await freePort();
  const env = { ...process.env, FRONT_PORT: String(port), BACK_PORT: new URL(server.url).port };
  start(command, ["-db", "-f", join(scripts, "haproxy.cfg")], { env, stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  const answers = () => fetch(`${url}/health`).then(({ ok }) => ok, () => false);
  await within(10, answers);
  must(await answers(), "HAProxy does not answer");
  return url;
}

/** A client that insists on HTTP/2 is told by HTTP/2 itself to take HTTP/1.1. */
function http2(server) {
  const { status, said } = run("curl", ["--silent", "--verbose", "--http2-prior-knowledge", "--max-time", "10", `${server.url}/health`]);
  // 13 is HTTP_1_1_REQUIRED (RFC 9113, section 7).
  must(status !== 0 && status !== 28 && /GOAWAY, error=13\b/.test(said), `curl met HTTP/2 otherwise, and ended with status ${status}:\n${said}`);
  console.log(`curl, in HTTP/2: ${/\S+ GOAWAY, error=13\b.*/.exec(said)[0]}, status ${status}`);
}

export async function pools() {
  const server = await serve();
  const failures = [];
  for (const one of CLIENTS) {
    await client(server, one).catch((error) => failures.push(`${one.name}: ${error.message}`));
  }
  http2(server);
  await server.stop();
  must(failures.length === 0, failures.join("\n"));
}

// What is measured, as Prometheus reads it: every family is in the table of docs/METRICS.md with its type, its labels and its
// meaning, and counts what has happened.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { freePort, here, must, python, root, run, serve, within } from "./surroundings.mjs";

const folder = join(here, "metrics");

/** The families, by name. */
async function scrape(port) {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  must(answer.headers.get("Content-Type").startsWith("application/openmetrics-text; version=1.0.0"), "it is not OpenMetrics");
  const command = join(python("metrics", join(folder, "requirements.txt")), "bin/python");
  const { status, stdout, said } = run(command, [join(folder, "families.py")], { input: await answer.text() });
  must(status === 0, said);
  return new Map(JSON.parse(stdout).map((family) => [family.name, family]));
}

/** The rows of the table: name, type, labels, meaning. */
function table() {
  const rows = readFileSync(join(root, "docs/METRICS.md"), "utf8").matchAll(/^\| `(taskpact_\w+)` \| (\w+) \|([^|]*)\|[^|]*\|$/gm);
  return new Map([...rows].map(([, name, type, labels]) => [name, { type, labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label).sort() }]));
}

/** The sum of the samples of a name that have these labels. */
const sum = (families, name, labels = {}) =>
  [...families.values()]
    .flatMap(({ samples }) => samples)
    .filter(([sample, found]) => sample === name && Object.entries(labels).every(([label, value]) => found[label] === value))
    .reduce((total, [, , value]) => total + Number(value.replace("inf", "Infinity")), 0);

export async function metrics() {
  // An issuer without any key, so that what is measured of keys is there, too.
  const issuer = createServer((_, answer) => answer.end('{"keys":[]}'));
  await new Promise((resolve) => issuer.listen(0, "127.0.0.1", resolve));
  const port = await freePort();
  const server = await serve({
    TASKPACT_METRICS__ADDRESS: `127.0.0.1:${port}`,
    TASKPACT_LIMITS__USER_REQUESTS_PER_MINUTE: "60",
    TASKPACT_LIMITS__USER_BURST: "10",
    TASKPACT_SERVER__HEAD_TIMEOUT_SECS: "1",
  });
  const token = server.token("ann");
  const send = (path, { headers, ...rest } = {}, bearer = token) =>
    fetch(server.url + path, { ...rest, headers: { Authorization: `Bearer ${bearer}`, "Content-Type": "application/json", ...headers } });
  const create = { method: "POST", body: '{"title":"Water the plants"}', headers: { "Idempotency-Key": "a" } };
  const statuses = [];
  for (let n = 0; n < 3; n++) statuses.push((await send("/api/ann/tasks", create)).status);
  for (let n = 0; n < 8; n++) statuses.push((await send("/api/ann/tasks")).status);
  statuses.push((await send("/api/ann/tasks", {}, "nonsense")).status, (await send("/nowhere")).status);
  const many = (status) => statuses.filter((one) => one === status).length;
  must(many(429) > 0, `nothing was too much: ${statuses}`);
  const silent = connect(Number(new URL(server.url).port), "127.0.0.1");
  await new Promise((resolve) => silent.on("close", resolve));

  const leave = new AbortController();
  const waiting = [1, 2].map(() => send("/api/bob/changes?wait=30", { signal: leave.signal }, server.token("bob")).catch(() => {}));
  await within(10, async () => sum(await scrape(port), "taskpact_changes_waiting") === 2);
  leave.abort();
  await Promise.all(waiting);
  await within(10, async () => sum(await scrape(port), "taskpact_http_requests_total", { operation: "listChanges" }) === 2);

  const families = await scrape(port);
  const counts = [
    ["taskpact_http_requests_total", { operation: "createTask", status: "201" }, 3],
    ["taskpact_http_requests_total", { operation: "listTasks", status: "200" }, many(200)],
    ["taskpact_http_requests_total", { problem: "too-many-requests" }, many(429)],
    ["taskpact_http_requests_total", { operation: "-", status: "404", problem: "no-such-path" }, 1],
    ["taskpact_changes_waiting", {}, 0],
    ["taskpact_http_request_duration_seconds_count", {}, statuses.length + 2],
    ["taskpact_http_requests_in_flight", {}, 0],
    ["taskpact_idempotent_replays_total", { operation: "createTask" }, 2],
    ["taskpact_token_verdicts_total", { verdict: "accepted" }, 3 + 8 + 2],
    ["taskpact_token_verdicts_total", { verdict: "refused", reason: "form" }, 1],
    ["taskpact_rate_limited_total", { by: "user" }, many(429)],
    ["taskpact_connections_closed_total", { for: "silent" }, 1],
    ["taskpact_database_wait_seconds_count", { access: "write" }, 3],
    // Each of those who waited has asked before, and once more when it began to listen.
    ["taskpact_database_set_size_sum", { access: "read" }, many(200) + 2 * 2],
    ["taskpact_database_work_seconds_count", { access: "write" }, 3],
  ];
  for (const [name, labels, expected] of counts) {
    must(sum(families, name, labels) === expected, `${name} ${JSON.stringify(labels)} is ${sum(families, name, labels)}, not ${expected}`);
  }
  await server.stop();

  const published = await freePort();
  const withKeys = await serve({
    BETTER_AUTH_SECRET: "",
    TASKPACT_AUTH__JWKS_URL: `http://127.0.0.1:${issuer.address().port}/`,
    TASKPACT_AUTH__ISSUER: "https://app.example.com",
    TASKPACT_METRICS__ADDRESS: `127.0.0.1:${published}`,
  });
  let of_keys;
  await within(10, async () => sum((of_keys = await scrape(published)), "taskpact_jwks_fetches_total", { outcome: "failure" }) > 0);
  must(sum(of_keys, "taskpact_jwks_age_seconds") === Infinity, "there are no keys, and they have an age");
  await withKeys.stop();
  issuer.close();

  const all = new Map([...families, ...of_keys]);
  // A family without samples has no labels to be seen.
  const described = table();
  for (const [name, { type, labels }] of all) {
    const row = described.get(name);
    must(row, `docs/METRICS.md does not have ${name}`);
    must(row.type === type, `${name} is a ${type}, and docs/METRICS.md says ${row.type}`);
    const seen = families.get(name)?.samples.length || of_keys.get(name)?.samples.length;
    must(seen, `nothing was seen of ${name}`);
    const expected = (families.get(name)?.samples.length ? families : of_keys).get(name).labels;
    must(JSON.stringify(row.labels) === JSON.stringify(expected), `${name} has the labels ${expected}, and docs/METRICS.md says ${row.labels}`);
  }
  for (const name of described.keys()) must(all.has(name), `there is no ${name}, which docs/METRICS.md has`);
  console.log(`${all.size} families are as docs/METRICS.md says; ${counts.length} counts are right`);
}

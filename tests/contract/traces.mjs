// What a collector is given of requests: a real one (Rotel), which tells in its log what has arrived. The server has to be built
// with the feature `otlp`.

import { openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { folder, freePort, here, must, program, python, run, serve, start, succeed, within } from "./surroundings.mjs";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER = "00f067aa0ba902b7";
const USER = "a-user-whose-id-must-not-leave";

/** Starts a collector. */
async function collect(port) {
  const command = join(python("traces", join(here, "traces/requirements.txt")), "bin/python");
  const agent = succeed(command, ["-c", "import importlib.util as u; print(u.find_spec('rotel').submodule_search_locations[0])"]).trim();
  const log = join(folder(), "log");
  const at = ["--otlp-http-endpoint", `127.0.0.1:${port}`, "--otlp-grpc-endpoint", `127.0.0.1:${await freePort()}`];
  const tells = ["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"];
  const child = start(join(agent, "rotel-agent"), ["start", ...at, ...tells], { stdio: ["ignore", openSync(log, "a"), openSync(log, "a")] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const said = () => readFileSync(log, "utf8");
  const answers = () => fetch(`http://127.0.0.1:${port}/v1/traces`, { method: "POST" }).then(() => true, () => false);
  await within(20, async () => child.exitCode !== null || (await answers()));
  must(child.exitCode === null, `the collector did not start:\n${said()}`);
  return { said, spans: () => spans(said()), stop: () => (child.kill("SIGKILL"), ended) };
}

/** The spans in what it said, with their attributes. */
function spans(said) {
  const [, ...parts] = said.split(/^Span #\d+$/m);
  return parts.map((part) => {
    const field = (name) => new RegExp(`^\\s*${name}\\s*: (.*)$`, "m").exec(part)?.[1].trim() ?? "";
    const attributes = [...part.split("ResourceSpans")[0].matchAll(/-> ([\w.]+): (?:Str|Int)\((.*)\)$/gm)].map(([, name, value]) => [name, value]);
    const [from, to] = ["Start time", "End time"].map((name) => BigInt(field(name)));
    return {
      ...{ name: field("Name"), trace: field("Trace ID"), id: field("ID"), parent: field("Parent ID"), from, to },
      ...{ kind: field("Kind"), status: field("Status code"), attributes: Object.fromEntries(attributes) },
    };
  });
}

export async function traces() {
  const port = await freePort();
  const collector = await collect(port);
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` };
  await arrives(collector, endpoint);
  await collector.stop();
  await isAway(port, endpoint);
  const grpc = run(program, [], { cwd: folder(), env: { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", PORT: "0" } });
  must(grpc.status === 2 && grpc.said.includes("`OTEL_EXPORTER_OTLP_PROTOCOL` must be http/protobuf"), `gRPC was answered ${grpc.status}: ${grpc.said}`);
}

/** Each request that is sampled arrives, also the last ones of a server that stops. */
async function arrives(collector, endpoint) {
  const file = join(folder(), "tasks.db");
  const server = await serve({ ...endpoint, DATABASE_URL: `sqlite://${file}`, OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=trial" });
  must(server.entries().some(({ message }) => message.startsWith("spans are sent to")), "it sends no spans: build it with --features otlp");
  const token = server.token(USER);
  const send = (path, { headers, ...rest } = {}) =>
    fetch(server.url + path, { ...rest, headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...headers } });
  const tasks = `/api/${USER}/tasks`;
  const create = { method: "POST", body: '{"title":"Water the plants"}' };
  const created = await send(tasks, { ...create, headers: { traceparent: `00-${TRACE}-${CALLER}-01`, "X-Request-Id": "mine" } });
  must(created.status === 201, `a task was not created: ${created.status}`);
  await send(tasks, { headers: { traceparent: `00-${TRACE.replace("4", "5")}-${CALLER}-00` } });
  await send(tasks);
  await send(`${tasks}/none`, { method: "DELETE" });
  await send("/nowhere");
  rmSync(file);
  must((await send(tasks, create)).status === 503, "a database that is gone was written to");
  const logged = server.requests();
  // The last spans are still in the queue.
  await server.stop();
  const found = collector.spans();

  const requests = found.filter(({ kind }) => kind === "SPAN_KIND_SERVER");
  const expected = [
    ["createTask", "STATUS_CODE_UNSET", { "http.request.method": "POST", "http.route": "/api/{user_id}/tasks", "http.response.status_code": "201" }],
    ["listTasks", "STATUS_CODE_UNSET", { "http.request.method": "GET", "http.route": "/api/{user_id}/tasks", "http.response.status_code": "200" }],
    ["deleteTask", "STATUS_CODE_UNSET", { "http.route": "/api/{user_id}/tasks/{task_id}", "http.response.status_code": "404", "taskpact.problem": "no-such-task", "error.type": undefined }],
    ["GET", "STATUS_CODE_UNSET", { "http.route": undefined, "http.response.status_code": "404", "taskpact.problem": "no-such-path" }],
    ["createTask", "STATUS_CODE_ERROR", { "http.response.status_code": "503", "taskpact.problem": "unavailable", "error.type": "unavailable" }],
  ];
  must(requests.length === expected.length, `${requests.length} requests arrived, not ${expected.length}:\n${collector.said()}`);
  for (const [n, [name, status, attributes]] of expected.entries()) {
    const met = requests[n];
    must(met.name === name && met.status === status, `request ${n} is ${met.name}, ${met.status}, not ${name}, ${status}`);
    for (const [key, value] of Object.entries(attributes)) must(met.attributes[key] === value, `${key} of request ${n} is ${met.attributes[key]}, not ${value}`);
    const line = logged.find(({ request_id }) => request_id === met.attributes["taskpact.request_id"]);
    must(line.trace_id === met.trace, `the log has request ${n} under another trace`);
    // The line is written a little later.
    const lasted = Number(met.to - met.from) / 1e6;
    must(Math.abs(lasted - line.duration_ms) < 5, `request ${n} lasted ${lasted} ms, and ${line.duration_ms} in the log`);
  }
  const [first] = requests;
  must(first.trace === TRACE && first.parent === CALLER && first.attributes["taskpact.request_id"] === "mine", "it left its caller's trace");
  const parts = found.filter(({ parent }) => parent === first.id);
  must(parts.map(({ name }) => name).join() === "wait,db", `its parts are ${parts.map(({ name }) => name)}`);
  must(parts.every(({ from, to, trace }) => trace === TRACE && first.from <= from && from <= to && to <= first.to), "a part is not within its request");
  for (const word of ["service.name: Str(taskpact)", "service.version: Str(", "deployment.environment.name: Str(trial)"]) {
    must(collector.said().includes(word), `the collector was not told ${word}`);
  }
  must(!collector.said().includes(USER) && !collector.said().includes("Water the plants"), "what is the users' own reached the collector");
  console.log(`${found.length} spans of ${requests.length} requests arrived`);
}

/** A collector that is away delays nobody, and is told of once; then it is found again. */
async function isAway(port, endpoint) {
  const server = await serve({ ...endpoint, OTEL_BSP_SCHEDULE_DELAY: "100", OTEL_BSP_MAX_QUEUE_SIZE: "64", OTEL_EXPORTER_OTLP_TIMEOUT: "1000" });
  const ask = () => fetch(`${server.url}/health`).then(({ status }) => status);
  const told = (words) => server.entries().filter(({ message }) => message.includes(words)).length;
  const since = Date.now();
  for (let n = 0; n < 500; n++) must((await ask()) === 200, "a request failed for want of a collector");
  const took = Date.now() - since;
  must(took < 5000, `500 requests took ${took} ms`);
  await within(20, () => told("the collector takes no spans") > 0);
  for (let n = 0; n < 50; n++) await ask(), await new Promise((resolve) => setTimeout(resolve, 20));
  must(told("the collector takes no spans") === 1, `it was told ${told("the collector takes no spans")} times that the collector is away`);

  const collector = await collect(port);
  await within(20, async () => (await ask(), told("the collector takes spans again") > 0));
  must(told("the collector takes spans again") === 1 && collector.spans().length > 0, "the collector was not found again");
  await collector.stop();
  await ask();
  const stopping = Date.now();
  await server.stop();
  const ended = Date.now() - stopping;
  must(ended < 8000, `it took ${ended} ms to stop without a collector`);
  console.log(`without a collector 500 requests took ${took} ms, and stopping ${ended} ms`);
}

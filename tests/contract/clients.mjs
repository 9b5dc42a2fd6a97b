// Three generators of TypeScript clients: what they make of the contract compiles strictly, has the types that a person
// would have written, and goes the whole round trip with the real server. The infinite queries of two of them page to the end.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { contract, folder, here, must, program, run, serve, succeed, tool, within } from "./surroundings.mjs";

const clients = join(here, "clients");
const generated = join(clients, "generated");
const ROUND_TRIPS = ["openapi-fetch", "hey-api", "orval"];
const CLIENTS = [...ROUND_TRIPS, "infinite-queries"];

/** What each client has to have met, by the server's own log. */
const MET = [
  "getHealth 200", "getReadiness 200", "createTask 201", "createTask 422", "listTasks 200", "listTasks 401", "listTasks 403", "listTasks 422",
  "getTask 200", "getTask 304", "updateTask 200", "updateTask 412", "toggleTaskCompletion 200", "deleteTask 204", "deleteTask 404",
  "listChanges 200", "listChanges 410",
];

/** What a contract could forget, where that stands, what stands there then, and which clients mind. */
const SPOILS = [
  ["a field can't be null", /(completed_at:\n(?: {10}.*\n)*?) {10}nullable: true\n/, "$1", CLIENTS],
  ["a problem may be of any type", /          enum:\n          - \/problems\/version-mismatch\n/, "", ROUND_TRIPS],
  ["a cursor is not what a page has", /(- name: cursor\n {8}schema:\n) {10}type: string\n {10}format: uuid\n(?: {10}m..Length.*\n){2}/, "$1          type: integer\n", ["infinite-queries"]],
];

const HEY_API = ["--client", "@hey-api/client-fetch", "--plugins", "@hey-api/typescript", "@hey-api/sdk", "@tanstack/react-query", "--no-log-file"];

function generate(file) {
  rmSync(generated, { recursive: true, force: true });
  typesAndSdk(file, generated);
  succeed(tool("orval"), ["--config", "orval.config.cjs"], { cwd: clients, env: { CONTRACT: file } });
}

function typesAndSdk(file, to) {
  succeed(tool("openapi-typescript"), [file, "--output", join(to, "openapi-typescript.ts")], { cwd: clients });
  succeed(tool("openapi-ts"), ["--input", file, "--output", join(to, "hey-api"), ...HEY_API], { cwd: clients });
}

/** The rendition in OpenAPI 3.1 means the same: two generators that read both make the same of it, to the byte. */
function meansTheSame() {
  const [source, rendition, spoilt] = [join(folder(), "3.0"), join(folder(), "3.1"), join(folder(), "spoilt")];
  const text = succeed(program, ["spec", "--openapi", "3.1"]);
  const files = [join(folder(), "3.1.yaml"), join(folder(), "spoilt.yaml")];
  writeFileSync(files[0], text);
  writeFileSync(files[1], text.replace(/- "null"\n/, "- boolean\n"));
  [contract, ...files].forEach((file, at) => typesAndSdk(file, [source, rendition, spoilt][at]));
  const differs = (folder) => run("diff", ["--recursive", "--brief", source, folder]).status !== 0;
  must(differs(spoilt), "a rendition that means something else makes no difference");
  must(!differs(rendition), succeed("sh", ["-c", `diff --recursive ${source} ${rendition} || true`]));
}

/** What the compiler complains of. */
const compile = () =>
  ["tsconfig.json", "tsconfig.hey-api.json"]
    .map((project) => run(tool("tsc"), ["--pretty", "false", "--project", project], { cwd: clients }))
    .map(({ status, said }) => (must(status === 0 || said.includes("error TS"), said), said))
    .join("");

export async function generatedClients() {
  // A test of types that tests nothing compiles, too.
  const text = readFileSync(contract, "utf8");
  for (const [what, part, replacement, minding] of SPOILS) {
    must(part.test(text), `there is no place where ${what}`);
    const spoilt = join(folder(), "spoilt.yaml");
    writeFileSync(spoilt, text.replace(part, replacement));
    generate(spoilt);
    const complaints = compile();
    for (const client of minding) must(complaints.includes(`${client}.ts(`), `${client}.ts does not mind that ${what}:\n${complaints}`);
  }

  meansTheSame();
  generate(contract);
  const errors = compile();
  must(errors === "", errors);

  const server = await serve();
  for (const client of CLIENTS) {
    const outfile = join(folder(), "client.mjs");
    await build({ entryPoints: [join(clients, `${client}.ts`)], outfile, bundle: true, platform: "node", format: "esm", logLevel: "warning" });
    const user = `user of ${client}`;
    const before = server.requests().length;
    const { status, said } = run(process.execPath, [outfile], {
      env: { TASKPACT_URL: server.url, TASKPACT_TOKEN: server.token(user), TASKPACT_USER: user },
    });
    must(status === 0, `The round trip of ${client} failed:\n${said}`);
    const met = () => server.requests().slice(before).map(({ operation, status }) => `${operation} ${status}`);
    const missing = () => (ROUND_TRIPS.includes(client) ? MET : ["listTasks 200"]).filter((one) => !met().includes(one));
    await within(5, () => missing().length === 0);
    must(missing().length === 0, `${client} has not met ${missing().join(", ")}; it has met ${met().join(", ")}`);
    console.log(`${client}: ${met().length} requests`);
  }
  await server.stop();
}

// Released contracts are kept: clients made of each, as they were made then, still make their way with today's server. One is
// held together by types (openapi-typescript), one holds whatever comes against the contract's schemas (hey-api with zod).
// Today's contract is among them, so that there always is one.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { parse, stringify } from "yaml";
import { keeps, recorded } from "./released.mjs";
import { contract, folder, here, must, run, serve, succeed, tool } from "./surroundings.mjs";

const clients = join(here, "kept");
const CLIENTS = ["openapi-fetch", "zod"];
const read = (file) => parse(readFileSync(file, "utf8"));

function generate(file) {
  rmSync(join(clients, "generated"), { recursive: true, force: true });
  succeed(tool("openapi-typescript"), [file, "--output", "generated/openapi-typescript.ts"], { cwd: clients });
  succeed(tool("openapi-ts"), ["--file", "openapi-ts.config.mjs"], { cwd: clients, env: { CONTRACT: file } });
}

let users = 0;

/** Sends a client on its way, as a user of its own. */
async function go(client, server) {
  const outfile = join(folder(), "client.mjs");
  await build({ entryPoints: [join(clients, `${client}.ts`)], outfile, bundle: true, platform: "node", format: "esm", logLevel: "warning" });
  const user = `user ${++users}`;
  return run(process.execPath, [outfile], { env: { TASKPACT_URL: server.url, TASKPACT_TOKEN: server.token(user), TASKPACT_USER: user } });
}

/** Fails unless every client of this contract compiles and arrives. Gives back what they said. */
async function holds(name, file, server) {
  generate(file);
  succeed(tool("tsc"), ["--pretty", "false", "--project", "tsconfig.json"], { cwd: clients });
  const all = [];
  for (const client of CLIENTS) {
    const { status, said } = await go(client, server);
    must(status === 0, `The contract of ${name} is not kept, says ${client}:\n${said}`);
    all.push(said);
  }
  return all.join("");
}

/** Today's contract, changed. */
function variant(change) {
  const document = read(contract);
  change(document);
  const file = join(folder(), "variant.yaml");
  writeFileSync(file, stringify(document, { aliasDuplicateObjects: false }));
  return file;
}

/** Makes it a contract before some additions: a property of tasks, and a type of problem. */
function earlier({ paths, components: { schemas, responses } }) {
  delete schemas.Task.properties.completed_at;
  schemas.Task.required = schemas.Task.required.filter((name) => name !== "completed_at");
  delete schemas.VersionMismatchProblem;
  delete responses.VersionMismatch;
  schemas.AnyProblem.oneOf = schemas.AnyProblem.oneOf.filter(({ $ref }) => !$ref.endsWith("/VersionMismatchProblem"));
  for (const operation of Object.values(paths).flatMap((methods) => Object.values(methods))) delete operation.responses?.["412"];
}

/** What the server does not keep, and the words in which that is found. */
const BROKEN = [
  ["a task has a property of another type", ({ components: { schemas: { Task } } }) => (Task.properties.version = { type: "string" }), /expected string/],
  ["a problem has another status", ({ components: { schemas: { NoSuchTaskProblem } } }) => (NoSuchTaskProblem.properties.status.enum = [410]), /expected 410/],
];

export async function kept() {
  const server = await serve();
  for (const [what, change, finds] of BROKEN) {
    generate(variant(change));
    const { status, said } = await go("zod", server);
    must(status !== 0 && finds.test(said), `nobody minds that ${what}:\n${said}`);
  }
  const unknown = "unknown: /problems/version-mismatch";
  const said = await holds("an earlier one", variant(earlier), server);
  must(said.includes(unknown), `no client met a type of problem that it did not know:\n${said}`);

  const today = read(contract).info.version;
  const promised = recorded().filter(({ version }) => keeps(version, today));
  for (const { version, file } of promised) await holds(version, file, server);
  must(!(await holds("today", contract, server)).includes("unknown: "), "today's contract does not have all types of problems");
  await server.stop();
  console.log(`${promised.length} released contracts, and today's, are kept`);
}

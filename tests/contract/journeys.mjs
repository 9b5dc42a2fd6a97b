// The journeys in journeys.arazzo.yaml: Redocly's Respect makes them with the real server. That a journey passes does not say
// that it went anywhere, so that the server's own log has to show every request of each.

import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { redocly } from "./lint.mjs";
import { contract, folder, must, root, run, serve, tool, within } from "./surroundings.mjs";

/** The user's tasks before, which are to be paged through and, if completed, erased: so many are neither more nor fewer. */
const BEFORE = [true, false, true, false, false];

/** What the journeys ask, in their order. Two of the first leave a task, so that paging finds seven, two on each page. */
const ASKED = [
  ...["createTask 201", "createTask 201"],
  ...["createTask 201", "getTask 200", "updateTask 200", "updateTask 412", "updateTask 200"],
  ...["listTasks 200", "listTasks 200", "listTasks 200", "listTasks 200"],
  "listTasks 200", // `further-pages` alone, with its default.
  ...["listTasks 200", "deleteTask 204", "listTasks 200", "deleteTask 204", "listTasks 200"],
  ...["listChanges 200", "createTask 201", "listChanges 200", "deleteTask 204", "listChanges 200", "listChanges 410", "listChanges 200"],
];

/** What a journey could say instead, and what is then said about it. */
const SPOILS = [
  ["the late update passes", "$statusCode == 412", "$statusCode == 200", /stepId - second-update/],
  ["the repeat is a new request", "value: $inputs.key", "value: '{$faker.string.uuid()}'", /stepId - create-again/],
  ["the merged update has an old ETag", "value: $steps.second-update.outputs.ETag", "value: $steps.read.outputs.ETag", /stepId - merged-update/],
  ["a page is the last one", "$response.header.Next-Cursor == null", "$statusCode == 200", /did not ask/],
  ["the device forgets where it was", "value: $steps.begin.outputs.next", "value: somewhere", /stepId - hear-of-the-task/],
  ["only one task is erased", "type: goto\n            stepId: find", "type: end", /did not ask/],
];

/** What is wrong with these journeys, as their user meets it. */
async function complaint(file, server, user) {
  const asked = () => server.requests().map(({ operation, status }) => `${operation} ${status}`);
  const before = asked().length + BEFORE.length;
  const token = server.token(user);
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  for (const completed of BEFORE) {
    const body = JSON.stringify({ title: "Mend the fence", completed });
    const { status } = await fetch(`${server.url}/api/${user}/tasks`, { method: "POST", headers, body });
    must(status === 201, `createTask answers ${status}`);
  }
  const { status, said } = run(tool("redocly"), ["respect", file, "--server", `taskpact=${server.url}`], {
    env: { REDOCLY_CLI_RESPECT_INPUT: JSON.stringify({ user_id: user, token, key: user }) },
  });
  if (status !== 0) return said;
  const met = () => asked().slice(before).join(", ");
  await within(2, () => met() === ASKED.join(", "));
  return met() === ASKED.join(", ") ? undefined : `they did not ask ${ASKED.join(", ")}, but ${met()}`;
}

export async function journeys() {
  const text = readFileSync(join(root, "journeys.arazzo.yaml"), "utf8");
  // Beside the contract that is checked, which they name.
  const copies = folder();
  copyFileSync(contract, join(copies, "api-spec.yaml"));
  const copy = join(copies, "journeys.arazzo.yaml");
  const write = (part, replacement) => {
    must(text.includes(part), `there is no ${part} to spoil`);
    writeFileSync(copy, text.replace(part, () => replacement));
  };

  const server = await serve();
  for (const [at, [what, part, replacement, finds]] of SPOILS.entries()) {
    write(part, replacement);
    const said = await complaint(copy, server, `spoilt-${at}`);
    must(finds.test(said), `nobody minds that ${what}:\n${said}`);
  }
  write("stepId: find", "stepId: fnd");
  must(redocly(copy).length > 0, "the linter does not mind a step that there is not");

  writeFileSync(copy, text);
  const faults = redocly(copy).map(({ rule, text }) => `${rule}: ${text}`);
  must(faults.length === 0, faults.join("\n"));
  const said = await complaint(copy, server, "ann");
  must(!said, said);
  await server.stop();
  console.log(`${ASKED.length} requests, those that there have to be`);
}

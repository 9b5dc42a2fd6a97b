// Schemathesis against the running server, on both databases: as the owner, with the longest bodies, without a token, and
// as another user. Whether the requests were really sent, and how they were answered, the server's own log tells.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { contract, folder, here, must, operations, postgres, python, run, serve } from "./surroundings.mjs";

const conformance = join(here, "conformance");

/** Schemathesis, as this project uses it. */
export const schemathesis = () => join(python("schemathesis", join(conformance, "requirements.txt")), "bin/schemathesis");

/** How often each operation was answered with each status. */
function answers(requests) {
  const counts = new Map();
  for (const { operation, status } of requests) {
    if (operation === "-") continue;
    const statuses = counts.get(operation) ?? counts.set(operation, new Map()).get(operation);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  return counts;
}

const total = (statuses) => [...statuses.values()].reduce((sum, count) => sum + count, 0);

/** Every operation was reached, and answered with success. */
function succeeded(met) {
  for (const { operationId } of operations()) {
    const statuses = [...(met.get(operationId)?.keys() ?? [])];
    must(statuses.some((status) => status >= 200 && status < 300), `${operationId} was never answered 2xx, only ${statuses}`);
  }
}

/** Every operation on tasks was reached, and answered with this status and no other. */
const allWere = (expected) => (met) => {
  for (const { operationId, security } of operations()) {
    const statuses = met.get(operationId);
    must(statuses && total(statuses) >= 3, `${operationId} was hardly called`);
    if (security.length === 0) continue;
    must([...statuses.keys()].every((status) => status === expected), `${operationId} was answered ${[...statuses.keys()]}, not only ${expected}`);
  }
};

/** Tasks of full length are kept, and nothing shorter. */
async function areLong(met, server, token) {
  succeeded(new Map([...met, ...["getHealth", "getReadiness"].map((probe) => [probe, new Map([[200, 1]])])]));
  const answer = await fetch(`${server.url}/api/ann/tasks`, { headers: { Authorization: `Bearer ${token}` } });
  const tasks = await answer.json();
  const lengths = tasks.map(({ title, description }) => `${[...title].length} and ${[...(description ?? "")].length}`);
  must(lengths.length > 0 && lengths.every((one) => one === "200 and 1000"), `not all tasks have full length: ${lengths}`);
}

const CALLERS = [
  { name: "as the owner", config: "owner.toml", holds: succeeded },
  {
    name: "with the longest bodies",
    config: "owner.toml",
    args: ["--mode=positive", "--max-examples=10", "--include-tag=Tasks"],
    env: { TASKPACT_FULL_LENGTH: "1" },
    holds: areLong,
  },
  { name: "without a token", config: "refused.toml", holds: allWere(401) },
  {
    name: "as another user",
    config: "refused.toml",
    as: "bob",
    // It would also leave the token out, or make one up. That was the caller before.
    args: ["--exclude-checks=ignored_auth", "--generation-with-security-parameters=false"],
    holds: allWere(403),
  },
];

export async function conforms() {
  const command = schemathesis();
  for (const database of ["SQLite", "PostgreSQL"]) {
    for (const { name, config, as, args = [], env = {}, holds } of CALLERS) {
      const server = await serve(database === "SQLite" ? {} : { DATABASE_URL: await postgres() });
      const tokens = { ann: server.token("ann"), bob: server.token("bob") };
      const identities = join(folder(), "identities.json");
      const entry = ([name, token]) => ({ name, fixedHeaders: [{ name: "Authorization", value: `Bearer ${token}` }] });
      writeFileSync(identities, JSON.stringify({ auth: Object.entries(tokens).map(entry) }));

      const header = as ? ["--header", `Authorization: Bearer ${tokens[as]}`] : [];
      const { status, said } = run(command, ["--config-file", config, "run", contract, "--url", server.url, "--no-color", ...header, ...args], {
        cwd: conformance,
        env: { ...env, TASKPACT_IDENTITIES: identities, PYTHONDONTWRITEBYTECODE: "1" },
      });
      must(status === 0, `Schemathesis ${name}, on ${database}:\n${said}`);
      const met = answers(server.requests());
      await holds(met, server, tokens.ann);
      await server.stop();
      const requests = [...met.values()].map(total).reduce((sum, count) => sum + count, 0);
      console.log(`${name}, on ${database}: ${requests} requests to ${met.size} operations; ${/(\d+) generated/.exec(said)?.[0]}`);
    }
  }
}

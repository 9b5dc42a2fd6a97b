// The linters: not one error and not one warning. Each also has to find the fault in a contract that has one.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { contract, folder, must, operations, run, tool } from "./surroundings.mjs";

const spectral = (ruleset) => (file) => {
  const { status, stdout, said } = run(tool("spectral"), ["lint", "--format=json", "--quiet", "--fail-severity=hint", `--ruleset=${ruleset}`, file]);
  must(status === 0 || status === 1, said);
  return JSON.parse(stdout).map((found) => ({ rule: found.code, text: `${found.path.join(".")}: ${found.message}` }));
};

export const redocly = (file) => {
  const { stdout, said } = run(tool("redocly"), ["lint", "--config=lint/redocly.yaml", "--format=json", file]);
  must(stdout.trim(), said);
  return JSON.parse(stdout)
    .problems.filter((found) => !found.ignored)
    .map((found) => ({ rule: found.ruleId, text: `${found.location.map((at) => at.pointer).join(" ")}: ${found.message}` }));
};

/** What replaced by what is found by which rule. */
const TWICE = ["\n      operationId: getTask", "\n      operationId: listTasks", "operation-operationId-unique"];
const LINTERS = [
  { name: "Redocly, recommended-strict", lint: redocly, spoils: [TWICE] },
  { name: "Spectral, spectral:oas", lint: spectral("lint/spectral.yaml"), spoils: [TWICE] },
  {
    name: "Spectral, OWASP",
    lint: spectral("lint/owasp.mjs"),
    spoils: [
      ["maxLength: 200", "minLength: 1", "owasp:api4:2023-string-limit"],
      ["name: limit", "name: access_token", "owasp:api2:2023-no-credentials-in-url"],
    ],
  },
];

export async function lint() {
  operations();
  const text = readFileSync(contract, "utf8");
  const faults = [];
  for (const { name, lint, spoils } of LINTERS) {
    const found = lint(contract);
    console.log(`${name}: ${found.length} complaints`);
    faults.push(...found.map(({ rule, text }) => `${name}: ${rule}: ${text}`));

    for (const [part, replacement, finds] of spoils) {
      must(text.includes(part), `there is no ${part} to spoil`);
      const spoilt = join(folder(), "spoilt.yaml");
      writeFileSync(spoilt, text.replace(part, replacement));
      must(lint(spoilt).some(({ rule }) => rule === finds), `${name} does not find ${finds} where it is`);
    }
  }
  must(faults.length === 0, faults.join("\n"));
}

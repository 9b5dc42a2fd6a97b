// The linters: not one error and not one warning. Each also has to find the fault in a contract that has one.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { contract, folder, must, operations, run, tool } from "./surroundings.mjs";

const spectral = (ruleset) => (file) => {
  const { status, stdout, said } = run(tool("spectral"), ["lint", "--format=json", "--quiet", "--fail-severity=hint", `--ruleset=${ruleset}`, file]);
  must(status === 0 || status === 1, said);
  return JSON.parse(stdout).map((found) => ({ rule: found.code, text: `${found.path.join(".")}: ${found.message}` }));
};

const redocly = (file) => {
  const { stdout, said } = run(tool("redocly"), ["lint", "--config=lint/redocly.yaml", "--format=json", file]);
  must(stdout.trim(), said);
  return JSON.parse(stdout)
    .problems.filter((found) => !found.ignored)
    .map((found) => ({ rule: found.ruleId, text: `${found.location.map((at) => at.pointer).join(" ")}: ${found.message}` }));
};

const LINTERS = [
  { name: "Redocly, recommended-strict", lint: redocly, spoil: ["operationId: getTask", "operationId: listTasks"], finds: "operation-operationId-unique" },
  { name: "Spectral, spectral:oas", lint: spectral("lint/spectral.yaml"), spoil: ["operationId: getTask", "operationId: listTasks"], finds: "operation-operationId-unique" },
  { name: "Spectral, OWASP", lint: spectral("lint/owasp.yaml"), spoil: ["maxLength: 200", "minLength: 1"], finds: "owasp:api4:2023-string-limit" },
];

export async function lint() {
  operations();
  const text = readFileSync(contract, "utf8");
  const faults = [];
  for (const { name, lint, spoil: [part, replacement], finds } of LINTERS) {
    const found = lint(contract);
    console.log(`${name}: ${found.length} complaints`);
    faults.push(...found.map(({ rule, text }) => `${name}: ${rule}: ${text}`));

    must(text.includes(part), `there is no ${part} to spoil`);
    const spoilt = join(folder(), "spoilt.yaml");
    writeFileSync(spoilt, text.replace(part, replacement));
    must(lint(spoilt).some(({ rule }) => rule === finds), `${name} does not find ${finds} where it is`);
  }
  must(faults.length === 0, faults.join("\n"));
}

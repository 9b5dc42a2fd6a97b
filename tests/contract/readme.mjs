// What the README and docs/ tell other teams to run, run as it stands there.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { build } from "esbuild";
import { launch, site } from "../browser/browser.mjs";
import { schemathesis } from "./conformance.mjs";
import { contract, folder, freePort, here, must, operations, program, QUIET, root, serve, succeed, tool } from "./surroundings.mjs";

/** Where it stands: the page, and the section; a page without sections is one. */
const CLIENTS = [
  ["README.md", "## Use it from TypeScript"],
  ["README.md", "## Keeping devices in step"],
  ["docs/CLIENTS.md", "## Retrying safely"],
  ["docs/CLIENTS.md", "## Keeping devices in step"],
  ["docs/CLIENTS.md", "## Generate a client"],
  ["docs/CLIENTS.md", "## Check yourself against the contract"],
];
const BETTER_AUTH = [["docs/AUTHENTICATION.md", "# Whose tokens are accepted"]];
const FRESHNESS = [["docs/FRESHNESS.md", "# A page that stays fresh"]];

/** What the reader has. */
const GIVEN = "declare const token: string, userId: string, baseUrl: string, signal: AbortSignal, show: (tasks: unknown[]) => void;";

/** The blocks of a language there. */
export function blocks(language, places = CLIENTS) {
  return places.flatMap(([page, title]) => {
    const sections = readFileSync(join(root, page), "utf8").split(/^(?=##? )/m);
    const section = sections.find((one) => one.startsWith(`${title}\n`));
    must(section, `${page} has no "${title}"`);
    return [...section.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(([, block]) => block);
  });
}

/** What is told to be installed is what is installed here. */
function installed(commands) {
  const { devDependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
  const [, version] = readFileSync(join(here, "conformance/requirements.in"), "utf8").trim().split("==");
  const versions = { ...devDependencies, schemathesis: version };
  const told = [...commands.matchAll(/(@?[\w/-]+)(?:@|==)([\d.]+)/g)];
  must(told.length === 8, `the pages install ${told.length} programs, not eight`);
  for (const [, name, version] of told) {
    must(versions[name] === version, `the pages install ${name} ${version}; what is tried here is ${versions[name]}`);
  }
}

/** The JSON object that a text begins with, whatever comes after it. */
function object(text) {
  for (const { index } of text.matchAll(/\}/g)) {
    try {
      return JSON.parse(text.slice(0, index + 1));
    } catch {
      // This was the end of an object inside it.
    }
  }
}

/** A `node_modules` with the packages of these folders. */
function modules(project, folders) {
  const modules = join(project, "node_modules");
  mkdirSync(modules);
  for (const folder of folders) {
    for (const name of readdirSync(folder)) if (!existsSync(join(modules, name))) symlinkSync(join(folder, name), join(modules, name));
  }
  return modules;
}

/** What is told to those who have a Better Auth compiles with it, and with the package. */
function withBetterAuth(packed) {
  const project = folder();
  const there = modules(project, [join(root, "tests/better-auth/node_modules"), join(here, "node_modules")]);
  symlinkSync(packed, join(there, "taskpact"));
  const code = blocks("ts", BETTER_AUTH);
  const [auth, authClient, tasks, use, route, token] = code;
  must(code.length === 6 && /^ *token: .*$/m.test(tasks), "docs/AUTHENTICATION.md has other blocks");
  const files = {
    "lib/auth.ts": auth,
    "lib/auth-client.ts": authClient,
    "lib/tasks.ts": tasks,
    "use.ts": `import { authClient } from "@/lib/auth-client";\nimport { tasks } from "@/lib/tasks";\nexport async function use() {\n${use}}\n`,
    "app/api/token/route.ts": route,
    "lib/tasks-with-a-secret.ts": tasks.replace(/^ *token: .*$/m, () => token),
    // It brings no types.
    "pg.d.ts": 'declare module "pg";\n',
    "tsconfig.json": JSON.stringify({
      compilerOptions: { strict: true, noEmit: true, skipLibCheck: true, target: "es2023", module: "preserve", types: ["node"], paths: { "@/*": ["./*"] } },
    }),
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(project, name)), { recursive: true });
    writeFileSync(join(project, name), text);
  }
  succeed(tool("tsc"), ["--pretty", "false", "--project", "."], { cwd: project });
}

/** The page that stays fresh compiles, and does in Chromium what is said of it. */
async function staysFresh(packed) {
  const project = folder();
  symlinkSync(packed, join(modules(project, [join(here, "node_modules")]), "taskpact"));
  const code = blocks("ts", FRESHNESS);
  must(code.length === 2, "docs/FRESHNESS.md has other blocks");
  for (const block of code) {
    const [, name] = block.match(/^\/\/ lib\/([\w-]+\.ts)\n/) ?? [];
    must(name, "a block of docs/FRESHNESS.md does not say which file it is");
    writeFileSync(join(project, name), block);
  }
  copyFileSync(join(here, "readme/fresh.ts"), join(project, "fresh.ts"));
  writeFileSync(join(project, "package.json"), '{ "type": "module" }');
  const compilerOptions = {
    strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noUnusedLocals: true, noEmit: true, skipLibCheck: true,
    target: "es2023", module: "preserve", lib: ["es2023", "dom", "dom.iterable"], types: [],
  };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  succeed(tool("tsc"), ["--pretty", "false", "--project", "."], { cwd: project });
  const { outputFiles } = await build({
    entryPoints: [join(project, "fresh.ts")], bundle: true, preserveSymlinks: true, write: false, platform: "browser", format: "iife", globalName: "bundle", logLevel: "warning",
  });

  const page = await site();
  const server = await serve({ TASKPACT_CORS__ALLOWED_ORIGINS: page.origin });
  const token = server.token("ann");
  const chromium = await launch();
  try {
    const tabs = [await chromium.newPage(), await chromium.newPage()];
    for (const tab of tabs) {
      await tab.exposeFunction("lists", async () => server.requests().filter(({ operation }) => operation === "listTasks").map(({ status }) => status));
      await tab.goto(page.origin);
      await tab.addScriptTag({ content: outputFiles[0].text });
    }
    await tabs[1].evaluate(([url, token]) => window.bundle.open(url, token), [server.url, token]);
    await tabs[0].bringToFront();
    const steps = await tabs[0].evaluate(([url, token]) => window.bundle.fresh(url, token), [server.url, token]);
    // It has seen the sign-out of the other one.
    await tabs[1].waitForFunction(() => window.opened.view().tasks.length === 0, undefined, { timeout: 5_000 });
    console.log(`the page stays fresh: ${steps} steps`);
  } finally {
    await chromium.close();
  }
  await server.stop();
  page.close();
}

export async function readme() {
  const project = folder();
  copyFileSync(contract, join(project, "api-spec.yaml"));
  copyFileSync(join(root, "journeys.arazzo.yaml"), join(project, "journeys.arazzo.yaml"));
  writeFileSync(join(project, "package.json"), "{}");
  const packed = join(modules(project, [join(here, "node_modules")]), "taskpact");
  mkdirSync(join(project, "bin"));
  symlinkSync(program, join(project, "bin/taskpact"));
  symlinkSync(dirname(dirname(schemathesis())), join(project, ".venv"));
  const toml = blocks("toml");
  must(toml.length === 1, "docs/CLIENTS.md has not one schemathesis.toml");
  writeFileSync(join(project, "schemathesis.toml"), toml[0]);

  const server = await serve();
  const port = await freePort();
  const lines = blocks("sh").join("").trim().split("\n");
  const installs = (line) => /^(npm install|python3 -m venv) /.test(line);
  installed(lines.filter(installs).join(" "));
  const commands = lines.filter((line) => !installs(line)).join("\n");
  const expected = [
    "npm pack ../taskpact/clients/typescript", "npx openapi-typescript", "npx openapi-ts", "npx orval", "taskpact spec --check", "prism mock",
    "redocly respect", "schemathesis run",
  ];
  for (const one of expected) must(commands.includes(one), `the pages do not say ${one}`);
  const script = commands.replaceAll("http://127.0.0.1:8080", server.url).replaceAll("4010", port).replaceAll("../taskpact", root);
  must(script.includes(server.url) && script.includes(port), "the pages have other addresses");
  // Output goes to a file: what runs in the background would keep a pipe open.
  const done = spawnSync("bash", ["-euo", "pipefail", "-c", `exec >said 2>&1; ${script}`], {
    cwd: project,
    env: {
      ...process.env,
      ...QUIET,
      PATH: [join(project, "bin"), process.env.PATH].join(delimiter),
      TOKEN: server.token("ann"),
      USER_ID: "ann",
      NO_COLOR: "1",
    },
  });
  const said = readFileSync(join(project, "said"), "utf8");
  must(done.status === 0, `the pages' commands failed:\n${said}`);
  const isMocked = await fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false);
  must(!isMocked, "the mock that docs/CLIENTS.md starts still runs");
  const answer = object(said.slice(said.search(/^\{"type"/m)));
  must(answer?.status === 412 && answer.type === "/problems/version-mismatch" && answer.current?.version, `the mock's 412 is not in:\n${said}`);
  const answered = server.requests().filter(({ status }) => status >= 200 && status < 300).map(({ operation }) => operation);
  for (const { operationId } of operations()) must(answered.includes(operationId), `Schemathesis did not get through to ${operationId}`);
  must(said.includes("6 passed, 6 total"), `not all journeys passed:\n${said}`);
  await server.stop();

  // Instead of npm, which would bring what is here already.
  mkdirSync(packed);
  succeed("sh", ["-c", 'tar -xzf taskpact-*.tgz --strip-components=1 -C "$1"', "sh", packed], { cwd: project });
  withBetterAuth(packed);
  await staysFresh(packed);
  const ts = blocks("ts");
  must(ts.length > 0, "the pages have no TypeScript");
  ts.forEach((code, at) => writeFileSync(join(project, `src/example-${at}.ts`), `${code.replace(/^$/m, GIVEN)}\nexport {};\n`));
  for (const made of ["taskpact.d.ts", "hey-api/sdk.gen.ts", "orval.ts"]) must(existsSync(join(project, "src", made)), `no ${made} was generated`);
  const sources = ["taskpact.d.ts", "hey-api/index.ts", "orval.ts", ...ts.map((_, at) => `example-${at}.ts`)].map((file) => join(project, "src", file));
  succeed(tool("tsc"), ["--strict", "--noEmit", "--target", "es2023", "--module", "preserve", "--lib", "es2023,dom,dom.iterable", ...sources], { cwd: project });
  console.log(`${lines.length} lines of the pages were run, ${answered.length} requests were answered 2xx`);
}

// The package in clients/typescript: it is made from this contract, it is small, and installed from its tarball it keeps its
// promises in Node.js and in Chromium, against the real server, over connections that break.

import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { parse } from "yaml";
import { launch, site } from "../browser/browser.mjs";
import { blocks } from "./readme.mjs";
import { relay } from "./relay.mjs";
import { contract, folder, here, must, operations, postgres, root, run, serve, start, succeed, tool, within } from "./surroundings.mjs";

const home = join(root, "clients/typescript");
const sources = join(here, "client");
/** What the package may weigh, compressed and without its types: that is what reaches a browser, and more. */
const MAX_BYTES = 15_000;

export async function client() {
  isMadeFromTheContract();
  const project = folder();
  const tarball = pack(project);
  succeed("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--silent", tarball], { cwd: project });
  compile(project);
  await inNode(project);
  await inChromium(project);
}

/** The generated types are committed; so is the licence, which npm does not take from the folder above. */
function isMadeFromTheContract() {
  const made = join(folder(), "contract.ts");
  succeed(join(home, "node_modules/.bin/openapi-typescript"), [contract, "--output", made]);
  const isCurrent = readFileSync(made).equals(readFileSync(join(home, "src/contract.ts")));
  must(isCurrent, "clients/typescript/src/contract.ts is not made from this contract: just client-types");
  must(readFileSync(join(home, "LICENSE")).equals(readFileSync(join(root, "LICENSE"))), "clients/typescript/LICENSE is not the licence");
}

/** Builds and packs as a release does, and looks at what is in it. */
function pack(project) {
  rmSync(join(home, "dist"), { recursive: true, force: true });
  const { status, stdout, said } = run("npm", ["pack", "--json", "--pack-destination", project], { cwd: home });
  must(status === 0, said);
  const [{ filename, files, version }] = JSON.parse(stdout.slice(stdout.indexOf("[")));
  const modules = readdirSync(join(home, "src")).map((name) => name.replace(/\.ts$/, ""));
  const expected = ["LICENSE", "README.md", "package.json", ...modules.flatMap((name) => [`dist/${name}.d.ts`, `dist/${name}.js`])];
  const packed = files.map(({ path }) => path);
  must(JSON.stringify(packed.sort()) === JSON.stringify(expected.sort()), `the package has ${packed}`);
  const { info } = parse(readFileSync(contract, "utf8"));
  must(version === info.version, `the package is version ${version}, the contract ${info.version}`);
  const { dependencies } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  must(JSON.stringify(Object.keys(dependencies)) === '["openapi-fetch"]', `the package depends on ${Object.keys(dependencies)}`);
  const bytes = gzipSync(Buffer.concat(packed.filter((path) => !path.endsWith(".d.ts")).map((path) => readFileSync(join(home, path))))).length;
  must(bytes < MAX_BYTES, `the package without its types has ${bytes} bytes`);
  console.log(`${filename}: ${packed.length} files; ${bytes} bytes without types`);
  return join(project, filename);
}

/** A project that uses the package: strictly compiled, against the types that are packed. */
function compile(project) {
  cpSync(sources, project, { recursive: true });
  cpSync(join(here, "clients/journey.ts"), join(project, "by-hand.ts"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ ...JSON.parse(readFileSync(join(project, "package.json"), "utf8")), type: "module" }));
  writeFileSync(join(project, "readme.ts"), readme());
  writeFileSync(join(project, "devices.ts"), devices());
  succeed(tool("openapi-ts"), ["--input", contract, "--output", join(project, "hey-api"), "--client", "@hey-api/client-fetch", "--no-log-file"]);
  succeed(tool("orval"), ["--config", join(project, "orval.config.cjs")], { cwd: project, env: { CONTRACT: contract } });
  for (const tsconfig of ["tsconfig.json", "tsconfig.types.json", "tsconfig.generated.json"]) {
    succeed(tool("tsc"), ["--pretty", "false", "--typeRoots", join(here, "node_modules/@types"), "--project", tsconfig], { cwd: project });
  }
}

/** The package's README as a module, whose blocks run one after the other. */
function readme() {
  const code = [...readFileSync(join(home, "README.md"), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block).join("");
  const lines = code.replaceAll('"http://127.0.0.1:8080"', "url").split("\n");
  must(lines.filter((line) => line.includes("baseUrl: url")).length === 2, "the package's README has other addresses");
  const isImport = (line) => line.startsWith("import ");
  return [
    ...lines.filter(isImport),
    "interface AuthClient { token(): Promise<{ data: { token: string } | null }> }",
    "export async function readme(url: string, authClient: AuthClient, console: { log(text: unknown): void }): Promise<void> {",
    ...lines.filter((line) => !isImport(line)),
    "}",
  ].join("\n");
}

/** What the README and docs/CLIENTS.md tell those who keep devices in step: a function each, that follows until it is told to stop. */
function devices() {
  const given = "baseUrl: string, token: string, userId: string, signal: AbortSignal";
  const [withThePackage, byHand, ...others] = ["README.md", "docs/CLIENTS.md"].flatMap((page) => blocks("ts", [[page, "## Keeping devices in step"]]));
  must(byHand && others.length === 0, "the pages do not have one block each on keeping devices in step");
  const isImport = (line) => line.startsWith("import ");
  const split = (code) => [true, false].map((wanted) => code.split("\n").filter((line) => isImport(line) === wanted).join("\n"));
  const [[imports, body], [otherImports, otherBody]] = [split(withThePackage), split(byHand.replace('"./taskpact"', '"taskpact"'))];
  return `
    ${imports}
    ${otherImports}
    export async function withThePackage(${given}, show: (tasks: Task[]) => void): Promise<void> {
      ${body}
    }
    export async function byHand(${given}, show: (tasks: Task[]) => void): Promise<void> {
      ${otherBody}
      const tasks = new Map<string, Task>();
      await follow({
        next: async () => undefined,
        async apply({ tasks: changed, deleted }, startsOver) {
          if (startsOver) tasks.clear();
          for (const task of changed) tasks.set(task.id, task);
          for (const { id } of deleted) tasks.delete(id);
          show([...tasks.values()]);
        },
      }, signal);
    }
  `;
}

/** What the pages say keeps devices in step: with what is created, changed, deleted and erased, and over a restart. */
async function keepInStep(project, world) {
  const devices = await import(pathToFileURL(join(project, "devices.mjs")));
  const { createTaskpact } = await import(pathToFileURL(join(project, "node_modules/taskpact/dist/index.js")));
  for (const [name, follow] of Object.entries(devices)) {
    const token = await world.token(name);
    const client = createTaskpact({ baseUrl: world.url, token });
    const controller = new AbortController();
    let shown = [];
    const followed = follow(world.faulty, token, name, controller.signal, (tasks) => (shown = tasks)).catch((error) => error);
    const shows = async (...titles) => {
      const isSo = () => JSON.stringify(shown.map(({ title }) => title).sort()) === JSON.stringify(titles.sort());
      await within(10, isSo);
      must(isSo(), `${name}: the device shows ${JSON.stringify(shown)}, not ${titles}`);
    };
    const { data: task } = await client.create({ title: "Water the plants" });
    await shows("Water the plants");
    await world.fault({ method: "GET", times: 1, what: "lose" });
    const { data: other } = await client.create({ title: "Feed the cat" });
    await client.update(task, { title: "Water them" });
    await shows("Water them", "Feed the cat");
    await client.remove(other.id);
    await shows("Water them");
    await world.restart();
    await client.create({ title: "Ring the bell" });
    await shows("Water them", "Ring the bell");
    await world.erase(name);
    await client.create({ title: "Sweep the stairs" });
    await shows("Sweep the stairs");
    controller.abort(new Error("closed"));
    const why = await followed;
    must(why === undefined || why.message === "closed", `${name} ended with ${why}`);
  }
}

/** Servers, and a way to them that fails. */
async function surroundings(settings = {}) {
  const server = await serve({ ...settings, TASKPACT_CHANGES__MAX_WAITING_PER_USER: "2" });
  const limited = await serve({ ...settings, TASKPACT_LIMITS__USER_REQUESTS_PER_MINUTE: "60", TASKPACT_LIMITS__USER_BURST: "1" });
  const between = await relay(server.url);
  const ids = operations().map(({ operationId }) => operationId);
  const served = (one) => one.requests().filter(({ operation }) => ids.includes(operation)).map(({ operation, status }) => `${operation} ${status}`);
  return {
    world: {
      url: server.url,
      faulty: between.url,
      limited: limited.url,
      token: async (user, ttl) => server.token(user, ttl),
      limitedToken: async (user) => limited.token(user),
      // Another secret.
      staleToken: async (user, ttl) => limited.token(user, ttl),
      fault: async (fault) => void between.fault(fault),
      erase: async (user) => void server.command("user", "erase", "--user", user, "--yes"),
      restart: () => server.restart(),
      requests: async (at) => served(at === "limited" ? limited : server),
    },
    stop: async () => (between.close(), await server.stop(), await limited.stop()),
  };
}

/** A key that another server is at: it has the key's row, and has not committed it. */
async function busy() {
  const DATABASE_URL = await postgres();
  const { url, token: tokenOf } = await serve({ DATABASE_URL });
  const token = tokenOf("busy");
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const { status } = await fetch(`${url}/api/busy/tasks`, { method: "POST", headers, body: '{"title": "Before"}' });
  must(status === 201, `a task was answered ${status}`);
  const statements = ["begin", "insert into idempotency_keys select id, 'in-use', '', '', now() from users", "select pg_sleep(5)", "rollback"];
  const other = start("psql", [...statements.flatMap((statement) => ["-c", statement]), DATABASE_URL], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const said of other.stdout) if (String(said).includes("INSERT 0 1")) break;
  return { url, token, key: "in-use" };
}

async function inNode(project) {
  const { world, stop } = await surroundings();
  const { journey } = await import(pathToFileURL(join(project, "journey.js")));
  passed("Node.js", await journey({ ...world, busy, streams: true }));

  for (const name of ["generated", "readme", "devices"]) {
    await build({ entryPoints: [join(project, `${name}.ts`)], outfile: join(project, `${name}.mjs`), bundle: true, platform: "node", format: "esm", logLevel: "warning" });
  }
  const { generated } = await import(pathToFileURL(join(project, "generated.mjs")));
  await generated(world);
  const said = [];
  const { readme } = await import(pathToFileURL(join(project, "readme.mjs")));
  await readme(world.url, { token: async () => ({ data: { token: await world.token("reader") } }) }, { log: (text) => said.push(text) });
  const expected = ["Water the plants", "/title must not be empty", "It is as it was.", 2];
  for (const one of expected) must(said.some((text) => text === one || String(text).startsWith(`${one};`)), `the package's README says ${JSON.stringify(said)}`);
  await keepInStep(project, world);
  console.log("generated clients, the package's README, and what keeps devices in step: ran");
  await stop();
}

async function inChromium(project) {
  const page = await site();
  const { world, stop } = await surroundings({ TASKPACT_CORS__ALLOWED_ORIGINS: page.origin });
  const { outputFiles } = await build({
    entryPoints: [join(project, "journey.js")], bundle: true, minify: true, write: false, platform: "browser", format: "iife", globalName: "bundle", logLevel: "warning",
  });
  const chromium = await launch();
  try {
    const tab = await chromium.newPage();
    await tab.exposeFunction("ask", (name, args) => world[name](...args));
    await tab.goto(page.origin);
    await tab.addScriptTag({ content: outputFiles[0].text });
    const addresses = { url: world.url, faulty: world.faulty, limited: world.limited };
    const asked = Object.keys(world).filter((name) => !(name in addresses));
    passed("Chromium", await tab.evaluate(([addresses, asked]) => {
      const functions = asked.map((name) => [name, (...args) => window.ask(name, args)]);
      return window.bundle.journey({ ...addresses, ...Object.fromEntries(functions), streams: false });
    }, [addresses, asked]));
  } finally {
    await chromium.close();
  }
  await stop();
  page.close();
}

function passed(where, { taken, failed }) {
  must(taken > 15 && failed.length === 0, `${failed.length} of ${taken} steps failed in ${where}:\n${failed.join("\n")}`);
  console.log(`${where}: ${taken} steps`);
}

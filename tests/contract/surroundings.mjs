// What every check needs: the contract, the server and its database, other programs.

import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

export const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, "../..");
/** The server's program. */
export const program = resolve(root, process.env.TASKPACT ?? "target/debug/taskpact");
/** The contract that is checked. Another one can be named, to see the checks fail on it. */
export const contract = resolve(root, process.env.CONTRACT ?? "api-spec.yaml");

/** Fails, in words for whoever has to fix it. */
export function must(condition, complaint) {
  if (!condition) throw new Error(complaint);
}

/** The operations of a contract: what must have been found, reached and generated. */
export function operations(file = contract) {
  const found = Object.entries(parse(readFileSync(file, "utf8")).paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );
  must(found.length >= 8 && found.every((operation) => operation.operationId), `${file} has no eight named operations`);
  return found;
}

/** A program of `node_modules`. */
export const tool = (name) => join(here, "node_modules/.bin", name);

/** Telemetry and notices of updates are off: nothing here talks to anyone outside. */
export const QUIET = { REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true", DO_NOT_TRACK: "1" };

/** Runs a program to its end. */
export function run(command, args, { env = {}, ...options } = {}) {
  const done = spawnSync(command, args, {
    cwd: here,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, ...QUIET, ...env },
    ...options,
  });
  if (done.error) throw done.error;
  return { status: done.status, stdout: done.stdout, said: `${done.stdout ?? ""}${done.stderr ?? ""}` };
}

/** Runs a program that has to succeed, and gives back what it said. */
export function succeed(command, args, options) {
  const { status, said } = run(command, args, options);
  must(status === 0, `${command} ${args.join(" ")} ended with status ${status}:\n${said}`);
  return said;
}

/** A Python with these requirements: an environment outside the repository that is made once for each list of them. */
export function python(name, requirements) {
  const hash = createHash("sha256").update(readFileSync(requirements)).digest("hex").slice(0, 16);
  const venv = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "taskpact", `${name}-${hash}`);
  if (!existsSync(join(venv, "complete"))) {
    rmSync(venv, { recursive: true, force: true });
    mkdirSync(venv, { recursive: true });
    succeed("python3", ["-m", "venv", venv]);
    succeed(join(venv, "bin/pip"), ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement", requirements]);
    writeFileSync(join(venv, "complete"), "");
  }
  return venv;
}

const atTheEnd = [];
process.on("exit", () => atTheEnd.reverse().forEach((work) => work()));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));

/** A folder that is removed when this program ends. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), "taskpact-"));
  atTheEnd.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Starts a program that ends when this one does, at the latest. */
export function start(command, args, options) {
  const child = spawn(command, args, options);
  atTheEnd.push(() => child.kill("SIGKILL"));
  child.on("error", (error) => {
    throw error;
  });
  return child;
}

/** Starts the server on a port that is free, in a folder of its own. */
export async function serve(settings = {}) {
  must(existsSync(program), `There is no ${program}: build it (cargo build), or name another one in TASKPACT.`);
  const cwd = folder();
  // Nothing of the caller's own settings: what is tried here must not reach a database of theirs.
  const env = { PATH: process.env.PATH, PORT: "0", BETTER_AUTH_SECRET: randomBytes(32).toString("hex"), TASKPACT_LOG__FORMAT: "json", ...settings };
  // To a file, not through a pipe: while this program waits for another one, nobody would read the pipe.
  const log = join(cwd, "log");
  const output = openSync(log, "a");
  const entries = () =>
    readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.startsWith("{") && line.endsWith("}"))
      .map((line) => JSON.parse(line));
  const addresses = () => entries().filter(({ message }) => message === "listening").map(({ url }) => url);
  let child;
  let ended;
  const launch = async (PORT) => {
    const before = addresses().length;
    child = start(program, [], { cwd, env: { ...env, PORT }, stdio: ["ignore", "ignore", output] });
    ended = new Promise((resolve) => child.on("exit", resolve));
    await within(20, () => addresses().length > before || child.exitCode !== null);
    must(addresses().length > before, `The server did not start:\n${readFileSync(log, "utf8")}`);
  };
  const stop = (signal = "SIGTERM") => (child.kill(signal), ended);
  const command = (...args) => {
    const { status, stdout, stderr } = spawnSync(program, args, { cwd, env, encoding: "utf8" });
    must(status === 0, stderr);
    return stdout.trim();
  };
  await launch(env.PORT);
  const [url] = addresses();
  return {
    url,
    /** What it has logged. */
    entries,
    /** An entry for each request. */
    requests: () => entries().filter(({ status }) => status),
    /** What another command of the program says in its folder. */
    command,
    token: (user, ttl = "1h") => command("token", "--user", user, "--ttl", ttl),
    stop,
    /** Stops it, or kills it, and starts it once more, at the same address and with the same data. */
    restart: async (signal) => (await stop(signal), await launch(new URL(url).port)),
  };
}

// It obeys the end of its input, so that PostgreSQL ends however this program ends.
const KEEPER = `
  bin=$1 port=$2
  folder=$(mktemp -d) && cd "$folder" || exit 1
  trap '' HUP INT TERM
  "$bin/initdb" -D data -U taskpact -A trust -E UTF8 --lc-messages=C --no-sync >initdb.log 2>&1 || { cat initdb.log; exit 1; }
  "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \\
    -c fsync=off -c full_page_writes=off <&- >server.log 2>&1 &
  until grep -qs 'ready to accept connections' server.log; do
    kill -0 $! || { cat server.log; exit 1; }
    sleep 0.05
  done
  echo ready
  read -r _
  kill -INT $! && wait $!
  cd / && rm -rf "$folder"
`;

/** The address of a new database on PostgreSQL: on the server that TEST_DATABASE_URL names, or on one of our own. */
export async function postgres() {
  const url = new URL(process.env.TEST_DATABASE_URL ?? (await (privatePostgres ??= startPostgres())));
  const name = `taskpact_contract_${randomBytes(6).toString("hex")}`;
  succeed("psql", ["-qc", `create database ${name}`, url.href]);
  atTheEnd.push(() => run("psql", ["-qc", `drop database if exists ${name} with (force)`, url.href]));
  return Object.assign(new URL(url), { pathname: name }).href;
}

let privatePostgres;

async function startPostgres() {
  const debian = "/usr/lib/postgresql";
  const candidates = [
    ...process.env.PATH.split(delimiter),
    ...(existsSync(debian) ? readdirSync(debian).sort().reverse().map((version) => join(debian, version, "bin")) : []),
  ];
  const bin = candidates.find((path) => existsSync(join(path, "initdb")) && existsSync(join(path, "postgres")));
  must(bin, "There is no PostgreSQL here: install it (Debian: apt-get install postgresql), or name a server in TEST_DATABASE_URL.");
  const port = await freePort();
  const shell = ["sh", "-c", KEEPER, "keeper", bin, String(port)];
  // PostgreSQL refuses to run as root.
  const [command, ...args] = process.getuid() === 0 ? ["runuser", "-u", "postgres", "--", ...shell] : shell;
  const keeper = spawn(command, args, { cwd: "/", stdio: ["pipe", "pipe", "inherit"], detached: true });
  keeper.unref();
  const said = [];
  await new Promise((resolve, reject) => {
    keeper.on("error", reject);
    keeper.on("exit", () => reject(new Error(`PostgreSQL did not start:\n${said.join("\n")}`)));
    createInterface(keeper.stdout).on("line", (line) => {
      said.push(line);
      if (line === "ready") resolve();
    });
  });
  return `postgres://taskpact@127.0.0.1:${port}/postgres`;
}

/** Waits until it is so, for some seconds at most. What comes through pipes is read meanwhile. */
export async function within(seconds, isSo) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end && !(await isSo()); ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A port that is free now. */
export function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

#!/usr/bin/env python3
"""Compares Taskpact with a FastAPI server that does the same, and with the database alone.

Both servers, each on a database of its own in one private PostgreSQL, are asked for the same by wrk, in turns, so that what
else happens on the machine hits both. pgbench runs plain statements without any server. Compare the ratios: the rates
themselves say as much about the machine. PostgreSQL writes to the folder for temporary files. If that is in memory and not
on a disk, name another one in TMPDIR, or commits cost nothing.
"""

import argparse
import base64
import hmac
import http.client
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
TASKS = 1000
LIST = "/api/ann/tasks"
BODY = json.dumps({"title": "Water the plants", "description": "The ones on the balcony, too"})
SECRET = secrets.token_hex(32)
# What the caller has set for other servers and clients is not for these.
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("TASKPACT_", "PG"))}
ENV |= {"BETTER_AUTH_SECRET": SECRET, "TASKPACT_LOG__FILTER": "warn", "PYTHONDONTWRITEBYTECODE": "1"}
# PostgreSQL refuses to run as root.
AS_POSTGRES = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
PEER = """import fastapi, httptools, jwt, platform, psycopg, sqlmodel, uvicorn, uvloop
print(f"FastAPI {fastapi.__version__} on Python {platform.python_version()}")"""


def find_programs(server, python):
    """The paths of the programs, and the versions of the peer. If something is missing, it says what, and ends."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -float(folder.parent.name))
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    programs = {name: shutil.which(name, path=path) for name in ("wrk", "initdb", "postgres", "psql", "pgbench")}
    packages = dict.fromkeys(programs, "postgresql") | {"wrk": "wrk"}
    missing = [f"{name} (Debian: apt-get install {packages[name]})" for name, found in programs.items() if not found]
    if not shutil.which(server):
        missing.append(f"the server, {server} (cargo build --release)")
    try:
        peer = subprocess.run([python, "-c", PEER], capture_output=True, text=True)
        problem = peer.stderr.strip().rpartition("\n")[2] if peer.returncode else None
    except OSError as error:
        problem = str(error)
    if problem:
        missing.append(f"""the peer's packages ({problem}):
        python3 -m venv VENV && VENV/bin/pip install -r benches/peers/requirements.txt
    and then name that Python here: --python VENV/bin/python""")
    if missing:
        sys.exit("\n  - ".join(["This is missing here:", *missing]))
    return programs, peer.stdout.strip()


def make_token():
    """Ann's JWT, signed with the secret."""
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    now = int(time.time())
    parts = {"alg": "HS256", "typ": "JWT"}, {"sub": "ann", "iat": now, "exp": now + 24 * 3600}
    signed = b".".join(encode(json.dumps(part).encode()) for part in parts)
    return (signed + b"." + encode(hmac.digest(SECRET.encode(), signed, "sha256"))).decode()


HEADERS = {"Authorization": f"Bearer {make_token()}", "Content-Type": "application/json"}


def ask(port, method, path, body=None, expected=None):
    """The status and the body of an answer; the status is 0 if there is none. Ends if it is not the expected one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, HEADERS)
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode()
    except OSError as error:
        status, text = 0, str(error)
    finally:
        connection.close()
    if status != (expected or status):
        sys.exit(f"{method} {path} was answered {status}, not {expected}: {text}")
    return status, text


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def run(command, **options):
    """What a program says that ends by itself."""
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def end(process, by):
    process.send_signal(by)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Bench:
    def __init__(self, arguments, stack):
        self.stack = stack
        self.programs, self.peer = find_programs(arguments.server, arguments.python)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and shutil.which("taskset") else []
        # The servers and PostgreSQL share a core, and the clients have another one, if there are two.
        self.pins = [["taskset", "-c", str(core)] for core in cores[:2]] if len(cores) > 1 else [[], []]
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        if AS_POSTGRES:
            shutil.chown(self.folder, "postgres", "postgres")
        self.start_postgres()
        # An environment's Python is a link to another one, and must not be followed.
        server, python = (os.path.abspath(shutil.which(one)) for one in (arguments.server, arguments.python))
        uvicorn = [python, "-m", "uvicorn", "--app-dir", HERE, "--workers", "1", "--loop", "uvloop", "--http", "httptools",
                   "--no-access-log", "--log-level", "warning", "fastapi_app:app", "--port"]
        self.servers = {
            "taskpact": self.start_server("taskpact", "postgres", lambda _: [server]),
            "fastapi": self.start_server("fastapi", "postgresql+psycopg", lambda port: [*uvicorn, port]),
        }
        rows = ", ".join(f"({n}, '{id}')" for n, id in enumerate(self.servers["taskpact"][1], 1))
        self.psql("taskpact", f"create table bench_ids (n int primary key, id uuid); insert into bench_ids values {rows}")
        for database in self.servers:
            # Now, because otherwise it happens while something is measured.
            self.psql(database, "vacuum analyze")
        one_of_each = [ask(port, "GET", f"{LIST}/{ids[0]}", expected=200)[1] for port, ids in self.servers.values()]
        if len({frozenset(json.loads(task)) for task in one_of_each}) > 1:
            sys.exit("The tasks have different fields:\n" + "\n".join(one_of_each))

    def start(self, name, command, is_ready, ends_by=signal.SIGTERM, **options):
        """Starts a program that runs until the end, and waits until it is ready."""
        print(f"{name} starts", file=sys.stderr)
        log = self.folder / f"{name}.log"
        with log.open("w") as to:
            # In a session of its own: a Ctrl-C at the terminal is for us, and we end the others.
            options |= {"stdin": subprocess.DEVNULL, "stdout": to, "stderr": to, "start_new_session": True}
            process = subprocess.Popen([*self.pins[0], *command], cwd=self.folder, **options)
        self.stack.callback(end, process, ends_by)
        deadline = time.monotonic() + 60
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)

    def start_postgres(self):
        data, self.postgres_port = self.folder / "data", free_port()
        initdb = [self.programs["initdb"], "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]
        run(initdb, cwd=self.folder, **AS_POSTGRES)
        self.at = ["-h", "127.0.0.1", "-p", self.postgres_port, "-U", "postgres"]
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=on", "synchronous_commit=on"]
        command = [self.programs["postgres"], "-D", data, "-p", self.postgres_port, *(f"--{one}" for one in settings)]
        probe = [self.programs["psql"], "-X", *self.at, "-c", "select 1"]
        # SIGINT does not wait for its clients.
        self.start("postgresql", command, lambda: not subprocess.run(probe, env=ENV, capture_output=True).returncode,
                   signal.SIGINT, env=ENV, **AS_POSTGRES)

    def psql(self, database, statements):
        run([self.programs["psql"], "-X", "-v", "ON_ERROR_STOP=1", *self.at, "-d", database], input=statements)

    def start_server(self, name, driver, command):
        """Starts a server on a database of its own, has it make the tasks, and returns its port and their ids."""
        port = free_port()
        self.psql("postgres", f"create database {name}")
        url = f"{driver}://postgres@127.0.0.1:{self.postgres_port}/{name}"
        self.start(name, command(port), lambda: ask(port, "GET", "/health/ready")[0] == 200,
                   env=ENV | {"DATABASE_URL": url, "HOST": "127.0.0.1", "PORT": port})
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: ask(port, "POST", LIST, BODY, expected=201), range(TASKS)))
        ids = [task["id"] for task in json.loads(ask(port, "GET", f"{LIST}?limit={TASKS}", expected=200)[1])]
        return (port, ids) if len(ids) == TASKS else sys.exit(f"{name} has {len(ids)} tasks, not {TASKS}")

    def wrk(self, name, workload, secs):
        """How many requests a server answers in a second."""
        port, ids = self.servers[name]
        paths = {"get": [f"{LIST}/{id}" for id in ids], "list": [f"{LIST}?limit=20"], "create": [LIST]}[workload]
        quote = json.dumps  # In ASCII, Lua reads such strings as JSON does.
        headers = [f"wrk.headers[{quote(name)}] = {quote(value)}" for name, value in HEADERS.items()]
        script = self.folder / "wrk.lua"
        script.write_text("\n".join([
            *headers,
            f"wrk.method, wrk.body = 'POST', {quote(BODY)}" if workload == "create" else "",
            f"local requests, n = {{ {', '.join(map(quote, paths))} }}, 0",
            "function init() for i, path in ipairs(requests) do requests[i] = wrk.format(nil, path) end end",
            "function request() n = n % #requests + 1 return requests[n] end",
        ]))
        command = [*self.pins[1], self.programs["wrk"], "-t", "1", "-c", "32", "-d", f"{secs}s", "-s", script]
        said = run([*command, f"http://127.0.0.1:{port}"])
        if "Non-2xx" in said or "Socket errors" in said:
            sys.exit(f"{name} failed to serve some requests of `{workload}`:\n{said}")
        return float(re.search(r"Requests/sec: *([\d.]+)", said)[1])

    def pgbench(self, workload, secs):
        """How many transactions the database alone does in a second."""
        options = ["-n", "-M", "prepared", "-c", "16", "-j", "1", "-T", str(secs), "-f", HERE / f"{workload}.sql"]
        said = run([*self.pins[1], self.programs["pgbench"], *options, *self.at, "taskpact"])
        return float(re.search(r"tps = ([\d.]+)", said)[1])

    def measure(self, workload, rounds, secs):
        """A row of the table."""
        for name in self.servers:
            self.wrk(name, workload, 1)  # Plans, pools and caches fill.
        results = []
        for n in range(1, rounds + 1):
            results.append((*(self.wrk(name, workload, secs) for name in self.servers), self.pgbench(workload, secs)))
            text = "{}, round {} of {}: taskpact {:.0f}, fastapi {:.0f}, pgbench {:.0f}"
            print(text.format(workload, n, rounds, *results[-1]), file=sys.stderr)
        ours, peers, alone = map(median, zip(*results))
        ratio = median(ours / peers for ours, peers, _ in results)
        return f"| `{workload}` | {ours:,.0f} | {peers:,.0f} | {ratio:.1f} | {alone:,.0f} |"

    def machine(self):
        """What the numbers hold for."""
        info = Path("/proc/cpuinfo")
        model = re.search(r"model name\s*: (.*)", info.read_text() if info.exists() else "")
        pinned = "one for the servers and PostgreSQL, one for the clients" if self.pins[0] else "not pinned"
        postgres = run([self.programs["postgres"], "--version"]).strip()
        return f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores ({pinned}); {postgres}; {self.peer}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="Taskpact's program, such as target/release/taskpact")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the peer's packages")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=int, default=5, help="how long each measurement takes")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(arguments, stack)
        rows = [bench.measure(workload, arguments.rounds, arguments.secs) for workload in ("get", "list", "create")]
        print("| workload | Taskpact, req/s | FastAPI, req/s | ratio | pgbench, tps |\n|---|--:|--:|--:|--:|")
        print("\n".join(rows), bench.machine(), sep="\n\n")


def interrupted(*_):
    on_signals(signal.SIG_IGN)  # What was started is still to be ended.
    sys.exit("interrupted")


def on_signals(handler):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


if __name__ == "__main__":
    on_signals(interrupted)
    main()

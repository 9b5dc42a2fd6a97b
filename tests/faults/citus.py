#!/usr/bin/env python3
"""A Citus cluster one of whose workers is killed, or frozen, while users on both of them ask.

    python3 tests/faults/citus.py --server target/release/taskpact

starts a coordinator and two workers, distributes the tables, and starts a server with `database.sets = owner` in front of the
coordinator. Then
  - users on each worker do everything that can be done. It fails if one of them is not served, if what is done for a user on one
    worker reaches the other one, or if a transaction is prepared, which only a distributed one is;
  - one worker is frozen, a user of it asks, and many of the other one after that. It fails if one of these is not served at once;
  - one worker is killed (SIGKILL of all its processes) and started again, and after that frozen (SIGSTOP of all of them) and
    thawed, while many clients of many users on each ask, reads and writes. It fails if a request of a user on the other worker
    fails or takes longer than the bound, if readiness does, if what was answered 201 is lost or there twice afterwards, or if the
    worker's own users are not served again.
It prints a row for each.

Everything stays on loopback. Citus has to be installed for the PostgreSQL that is found; it is in no Debian package.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from common import Server, free_port, programs, token

# As root everything but the server runs as this user, as PostgreSQL wants it.
USER = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
DISTRIBUTE = """
select create_distributed_table('users', 'id');
select create_distributed_table('tasks', 'user_id', colocate_with => 'users');
select create_distributed_table('idempotency_keys', 'user_id', colocate_with => 'users');
select create_distributed_table('deleted_tasks', 'user_id', colocate_with => 'users');
"""
USERS = 20
HEAD = """| users | answers | failed | p50, ms | p99, ms | slowest, ms | lost | doubled |
|---|--:|--:|--:|--:|--:|--:|--:|"""


class Node:
    """A PostgreSQL with Citus."""

    def __init__(self, folder, name):
        self.bin, self.port, self.name = programs(), free_port(), name
        self.data, self.log = os.path.join(folder, name), os.path.join(folder, f"{name}.log")
        self.url = f"postgres://taskpact@127.0.0.1:{self.port}/postgres"
        initdb = [os.path.join(self.bin, "initdb"), "-D", self.data, "-U", "taskpact", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **USER)
        self.start()
        self.sql("create extension citus")

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_preload_libraries": "citus",
                    "citus.node_conninfo": "sslmode=prefer", "max_connections": "100", "log_line_prefix": "%p %a "}
        command = [os.path.join(self.bin, "postgres"), "-D", self.data, "-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, start_new_session=True, **USER)
        deadline = time.monotonic() + 30
        while self.sql("select 1", check=False) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("PostgreSQL did not start: " + open(self.log).read()[-2000:])
            time.sleep(0.05)

    def signal(self, which):
        """To all its processes. The first one goes first, which makes no more then."""
        self.process.send_signal(which)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], stdout=subprocess.PIPE).stdout
        for pid in map(int, children.split()):
            try:
                os.kill(pid, which)
            except ProcessLookupError:
                pass

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def sql(self, statement, check=True):
        psql = shutil.which("psql") or os.path.join(self.bin, "psql")
        command = [psql, "-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", statement]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode and check:
            sys.exit(f"{self.name}: {done.stderr}")
        return None if done.returncode else done.stdout

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)


class Cluster:
    def __init__(self, program):
        self.folder = tempfile.mkdtemp()
        if USER:
            shutil.chown(self.folder, "postgres")
        os.chmod(self.folder, 0o755)
        self.nodes = []
        for name in ("coordinator", "one", "two"):
            self.nodes.append(Node(self.folder, name))
        self.coordinator, *self.workers = self.nodes
        self.coordinator.sql(f"select citus_set_coordinator_host('127.0.0.1', {self.coordinator.port})")
        for worker in self.workers:
            self.coordinator.sql(f"select citus_add_node('127.0.0.1', {worker.port})")
        env = {"DATABASE_URL": self.coordinator.url}
        subprocess.run([os.path.abspath(program), "migrate", "up"], env=env, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        for statement in DISTRIBUTE.strip().splitlines():
            self.coordinator.sql(statement)

    def users(self, worker, prefix, count):
        """So many users whose rows are on this worker."""
        rows = self.coordinator.sql(
            f"select u from (select '{prefix}-' || n as u from generate_series(1, {count * 8}) n) candidates "
            "join pg_dist_placement p on p.shardid = get_shard_id_for_distribution_column('users', u) "
            f"join pg_dist_node using (groupid) where nodeport = {worker.port} order by u limit {count}")
        return rows.split()

    def remote_commands(self, act):
        """What sessions of the server send to workers meanwhile: pairs of a port and a command."""
        role = "alter role taskpact {} citus.log_remote_commands{}"
        self.coordinator.sql(role.format("set", " = on") + "; alter role taskpact set log_min_messages = notice")
        self.coordinator.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taskpact'")
        start = os.path.getsize(self.coordinator.log)
        act()
        self.coordinator.sql(role.format("reset", "") + "; alter role taskpact reset log_min_messages")
        self.coordinator.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taskpact'")
        with open(self.coordinator.log) as log:
            log.seek(start)
            text = log.read()
        pattern = r"^\d+ taskpact NOTICE:  issuing (.*?)\n\d+ taskpact DETAIL:  on server \S+:(\d+) "
        return [(int(port), command) for command, port in re.findall(pattern, text, re.M | re.S)]

    def end(self):
        for node in reversed(self.nodes):
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class Client(threading.Thread):
    """A client of a user: makes a task, reads the list, reads the task, completes it, again and again."""

    def __init__(self, server, user, stop):
        super().__init__(daemon=True)
        self.server, self.user, self.stop, self.head = server, user, stop, {"Authorization": f"Bearer {token(user)}"}
        self.made, self.asked, self.times, self.made_count = [], 0, [], 0
        self.name = f"{user}-{id(self)}"

    def ask(self, method, path, body=None, key=None):
        started = time.monotonic()
        head = dict(self.head)
        if body:
            head["Content-Type"] = "application/json"
        if key:
            head["Idempotency-Key"] = key
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(method, path, body and json.dumps(body), head)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            status, text = "none", b""
        finally:
            connection.close()
        self.times.append((time.monotonic(), time.monotonic() - started, status))
        return status, text

    def run(self):
        base = f"/api/{self.user}/tasks"
        while not self.stop.is_set():
            self.asked += 1
            title, key = f"{self.name} {self.asked}", f"{self.name}-{self.asked}" if self.asked % 2 else None
            status, text = self.ask("POST", base, {"title": title}, key)
            self.ask("GET", f"{base}?limit=20")
            if status == 201:
                self.made.append(title)
                task = f"{base}/{json.loads(text)['id']}"
                self.ask("GET", task)
                self.ask("PATCH", f"{task}/complete", key=key and f"{key}-done")
            time.sleep(0.02)


def kept(server, users):
    """How often each title is there."""
    found = {}
    for user in users:
        query = "limit=1000"
        while query:
            status, headers, text = server.ask("GET", f"/api/{user}/tasks?{query}", user)
            assert status == 200, (status, text)
            for task in json.loads(text):
                found[task["title"]] = found.get(task["title"], 0) + 1
            cursor = {name.lower(): value for name, value in headers.items()}.get("next-cursor")
            query = cursor and f"limit=1000&cursor={cursor}"
    return found


def everything(server, users):
    """Every operation, with keys and without, and repeats; gives back what was answered otherwise than expected."""
    wrong = []
    for user in users:
        base = f"/api/{user}/tasks"

        def ask(expected, method, path, body=None, key=None):
            status, _, text = server.ask(method, path, user, body, key)
            if status != expected:
                wrong.append(f"{method} {path}: {status} {text[:200]}")
            return json.loads(text) if text else {}

        for n in range(2):
            task = f"{base}/{ask(201, 'POST', base, {'title': 'one'}).get('id')}"
            keyed = [ask(201, "POST", base, {"title": "two"}, f"key-{n}").get("id") for _ in range(2)]
            ask(200, "GET", task)
            for query in ("", "?limit=1", "?status=pending", "?status=completed"):
                ask(200, "GET", base + query)
            ask(200, "PUT", task, {"title": "three"})
            ask(200, "PATCH", f"{task}/complete")
            toggled = [ask(200, "PATCH", f"{task}/complete", key=f"toggle-{n}").get("version") for _ in range(2)]
            ask(204, "DELETE", task)
            ask(404, "DELETE", task)
            ask(404, "GET", task)
            if len(set(keyed)) != 1 or len(set(toggled)) != 1:
                wrong.append(f"{user}: a repeat did something: {keyed} {toggled}")
    return wrong


def after_a_single_one(cluster, server, near, far):
    """A session whose statement is given up, while the worker that it is at is frozen, goes on waiting for that worker."""
    [mine], others = cluster.users(far, "single", 1), cluster.users(near, "single", 10)
    for user in [mine, *others]:
        for _ in range(3):
            assert server.ask("POST", f"/api/{user}/tasks", user, {"title": "t"})[0] == 201
    found = []

    def ask(user):
        started = time.monotonic()
        status = server.ask("GET", f"/api/{user}/tasks?limit=1", user)[0]
        found.append((status, time.monotonic() - started))

    def at_once(users):
        threads = [threading.Thread(target=ask, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # So that each session has been at that worker.
    at_once([mine] * 20)
    far.signal(signal.SIGSTOP)
    try:
        ask(mine)
        if found[-1][0] != 503:
            return [("it was answered by a worker that is frozen", found[-1])], 0
        found.clear()
        for _ in range(6):
            at_once(others)
    finally:
        far.signal(signal.SIGCONT)
    return [status for status, _ in found if status != 200], max(took for _, took in found)


def part(name, clients, since, until, there, bound, failures):
    """A row: what these clients were answered meanwhile."""
    times = [(took, status) for client in clients for at, took, status in client.times if since <= at < until]
    took = sorted(took * 1000 for took, _ in times) or [0]
    failed = [status for _, status in times if status not in (200, 201)]
    made = [title for client in clients for title in client.made]
    lost = [title for title in made if title not in there]
    doubled = [title for title, count in there.items() if count > 1 and title.rsplit(" ", 1)[0] in {client.name for client in clients}]
    p99 = statistics.quantiles(took, n=100)[-1] if len(took) > 1 else took[0]
    print(f"| {name} | {len(times)} | {len(failed)} | {statistics.median(took):.0f} | {p99:.0f} | {took[-1]:.0f} | "
          f"{len(lost)} | {len(doubled)} |", flush=True)
    if lost or doubled:
        failures.append(f"{name}: lost {lost[:3]}, doubled {doubled[:3]}")
    undeclared = [status for status in failed if status != 503]
    if undeclared:
        failures.append(f"{name}: answered {undeclared[:3]}")
    if bound and (failed or took[-1] > bound):
        failures.append(f"{name}: {len(failed)} failed, the slowest took {took[-1]:.0f} ms")
    if bound and len(times) < 20:
        failures.append(f"{name}: hardly anything was asked")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", required=True, help="the program")
    parser.add_argument("--seconds", type=float, default=20, help="how long each part takes")
    parser.add_argument("--clients", type=int, default=3, help="how many clients each user of the worker in trouble has")
    parser.add_argument("--bound", type=float, default=1000, help="the slowest answer to a user of the other worker, in ms")
    options = parser.parse_args()
    failures, folder, cluster = [], tempfile.mkdtemp(), Cluster(options.server)
    try:
        server = Server(options.server, cluster.coordinator.url, folder, {"TASKPACT_DATABASE__SETS": "owner"})
        version = cluster.coordinator.sql("select split_part(citus_version(), ' ', 2), current_setting('server_version')")
        print("Citus, PostgreSQL:", version.strip())
        for worker in cluster.workers:
            users, wrong = cluster.users(worker, "all", 10), []
            commands = cluster.remote_commands(lambda: wrong.extend(everything(server, users)))
            failures += wrong[:3]
            elsewhere = [command for port, command in commands if port != worker.port]
            prepared = [command for _, command in commands if command.startswith("PREPARE TRANSACTION")]
            print(f"every operation for {len(users)} users on worker {worker.name}: {len(wrong)} failed; {len(commands)} commands to "
                  f"workers, {len(elsewhere)} to the other one, {len(prepared)} transactions prepared", flush=True)
            if elsewhere or prepared or len(commands) < 100:
                failures.append(f"not on one worker: {(elsewhere + prepared)[:3]}")

        one, two = cluster.workers
        bad, slowest = after_a_single_one(cluster, server, one, two)
        print(f"a single request to a worker that is frozen, and when it has failed 60 of others at once, on the session that it "
              f"had, too: {len(bad)} of these failed, the slowest took {slowest * 1000:.0f} ms", flush=True)
        if bad or slowest * 1000 > options.bound:
            failures.append(f"after a single request to a worker that is frozen: {bad[:3]}, {slowest:.1f} s")

        rounds = {
            "killed": (two.kill, two.start),
            "frozen": (lambda: two.signal(signal.SIGSTOP), lambda: two.signal(signal.SIGCONT)),
        }
        print("\n" + HEAD, flush=True)
        for what, (harm, heal) in rounds.items():
            stop = threading.Event()
            others = [Client(server, user, stop) for user in cluster.users(one, f"{what}-other", 10)]
            new = iter(cluster.users(one, f"{what}-new", 200))
            own = [Client(server, user, stop) for user in cluster.users(two, what, USERS) for _ in range(options.clients)]
            for client in others + own:
                client.start()
            time.sleep(3)
            start = time.monotonic()
            time.sleep(options.seconds / 2)
            harm()
            harmed = time.monotonic()
            # Users who had no task before, and readiness.
            first, ready = [], []
            while time.monotonic() < harmed + options.seconds:
                client = Client(server, next(new), stop)
                client.ask("POST", f"/api/{client.user}/tasks", {"title": "first"})
                first.append(client)
                asked = time.monotonic()
                ready.append((server.ask("GET", "/health/ready", "nobody")[0], time.monotonic() - asked))
                time.sleep(0.2)
            sessions = cluster.coordinator.sql("select count(*) from pg_stat_activity where application_name = 'taskpact'").strip()
            heal()
            healed = time.monotonic()
            back = 999
            while time.monotonic() < healed + 30:
                if server.ask("POST", f"/api/{own[0].user}/tasks", own[0].user, {"title": "back"})[0] == 201:
                    back = time.monotonic() - healed
                    break
            time.sleep(8)
            end = time.monotonic()
            stop.set()
            for client in others + own:
                client.join(40)
            there = kept(server, sorted({client.user for client in others + own}))
            there.pop("back", None)
            part("of the other worker, before", others, start, harmed, there, options.bound, failures)
            part(f"of the other worker, while one is {what}", others, harmed, healed, there, options.bound, failures)
            part("new ones there, meanwhile", first, harmed, healed, {}, options.bound, failures)
            part(f"of the worker that is {what}, meanwhile", own, harmed, healed, there, None, failures)
            part("the same, from 3 s after it is back", own, healed + 3, end, there, None, failures)
            late = [status for client in own for at, _, status in client.times if at > healed + 6 and status not in (200, 201)]
            unready = [status for status, _ in ready if status != 200]
            print(f"{what}: its users were served again after {back:.1f} s; readiness: {len(unready)} of {len(ready)} not 200, "
                  f"slowest {max(took for _, took in ready) * 1000:.0f} ms; {sessions} sessions on the coordinator", flush=True)
            if back > 10 or late:
                failures.append(f"{what}: its users were not served again: after {back:.1f} s, {late[:3]}")
            if unready:
                failures.append(f"{what}: not ready")
        server.kill()
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(bool(failures))


main()

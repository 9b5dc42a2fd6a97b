#!/usr/bin/env python3
"""A cluster of Patroni whose leader is killed under load, again and again.

    python3 tests/faults/patroni.py --server target/release/taskpact

starts etcd, two nodes of PostgreSQL under Patroni with synchronous replication, HAProxy that sends to the leader, and the
server behind that. Writers keep account, as in crashes.py. Each time the leader and its Patroni are killed (SIGKILL), and
come back as a replica. It fails if anything that was answered 201 is lost or there twice, if anything else but 201 and 503 is
answered, or if the server serves again later than two seconds after Patroni has a leader that takes writes.

Everything stays on loopback. Debian: `apt-get install patroni etcd-server python3-etcd haproxy postgresql`.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from common import HEAD, Server, fault, free_port, programs

# As root everything but the server runs as this user, as PostgreSQL wants it.
USER = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


class Cluster:
    def __init__(self):
        self.folder = tempfile.mkdtemp()
        if USER:
            shutil.chown(self.folder, "postgres")
        os.chmod(self.folder, 0o755)
        self.etcd, self.running, self.nodes = free_port(), [], []
        peer = free_port()
        self.run("etcd", "etcd", "--data-dir", f"{self.folder}/etcd", "--enable-v2=true",
                 "--listen-client-urls", f"http://127.0.0.1:{self.etcd}", "--advertise-client-urls", f"http://127.0.0.1:{self.etcd}",
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-cluster", f"default=http://127.0.0.1:{peer}")
        time.sleep(2)
        for name in ("one", "two"):
            node = {"name": name, "port": free_port(), "api": free_port()}
            self.configure(node)
            self.nodes.append(node)
            self.begin(node)
            # The first one makes the cluster.
            self.wait(lambda: self.role(node) in ("master", "primary", "replica"), 60, f"node {name} did not start")
        self.wait(lambda: sum(self.is_leader(node) for node in self.nodes) == 1, 60, "there is no leader")
        self.wait(self.has_standby, 60, "there is no synchronous standby")
        self.port = free_port()
        servers = "\n".join(f" server {node['name']} 127.0.0.1:{node['port']} check port {node['api']}" for node in self.nodes)
        with open(f"{self.folder}/haproxy.cfg", "w") as file:
            file.write(f"""global
 maxconn 200
defaults
 mode tcp
 timeout connect 2s
 timeout client 30m
 timeout server 30m
listen leader
 bind 127.0.0.1:{self.port}
 option httpchk GET /primary
 default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
""")
        self.run("haproxy", shutil.which("haproxy") or "/usr/sbin/haproxy", "-q", "-f", f"{self.folder}/haproxy.cfg")
        self.url = f"postgres://postgres:x@127.0.0.1:{self.port}/postgres"

    def run(self, name, *command):
        log = open(f"{self.folder}/{name}.log", "a")
        process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **USER)
        self.running.append(process)
        return process

    def configure(self, node):
        settings = {
            "scope": "taskpact", "name": node["name"],
            "restapi": {"listen": f"127.0.0.1:{node['api']}", "connect_address": f"127.0.0.1:{node['api']}"},
            "etcd": {"host": f"127.0.0.1:{self.etcd}"},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 6, "synchronous_mode": True,
                        "maximum_lag_on_failover": 0,
                        "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on", "max_connections": 100}}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{node['port']}", "connect_address": f"127.0.0.1:{node['port']}",
                "data_dir": f"{self.folder}/{node['name']}", "bin_dir": self.binaries(), "pgpass": f"{self.folder}/pgpass-{node['name']}",
                "authentication": {"superuser": {"username": "postgres", "password": "x"},
                                   "replication": {"username": "replicator", "password": "x"},
                                   "rewind": {"username": "rewinder", "password": "x"}},
                "pg_hba": ["host all all 127.0.0.1/32 md5", "host replication all 127.0.0.1/32 md5"],
                "parameters": {"unix_socket_directories": self.folder},
            },
        }
        with open(f"{self.folder}/{node['name']}.yml", "w") as file:
            # JSON is YAML.
            json.dump(settings, file)

    @staticmethod
    def binaries():
        folder = programs()
        return os.path.dirname(os.path.realpath(os.path.join(folder, "postgres")))

    def begin(self, node):
        node["patroni"] = self.run(node["name"], "patroni", f"{self.folder}/{node['name']}.yml")

    @staticmethod
    def ask(node, path="/patroni"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{node['api']}{path}", timeout=2) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return {}

    def role(self, node):
        found = self.ask(node)
        return found.get("role") if found.get("state") == "running" else None

    def is_leader(self, node):
        return self.role(node) in ("master", "primary")

    def has_standby(self):
        leader = next((node for node in self.nodes if self.is_leader(node)), None)
        members = self.ask(leader, "/cluster").get("members", []) if leader else []
        return any(member.get("role") == "sync_standby" for member in members)

    def wait(self, done, limit, what):
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                logs = "".join(open(f"{self.folder}/{name}.log").read()[-1500:] for name in ("etcd", "one") if os.path.exists(f"{self.folder}/{name}.log"))
                sys.exit(f"{what}: {logs}")
            time.sleep(0.1)

    def kill_leader(self):
        """Kills the leader, and waits until another one takes writes; gives back how long that took."""
        leader = next(node for node in self.nodes if self.is_leader(node))
        other = next(node for node in self.nodes if node is not leader)
        started = time.monotonic()
        with open(f"{self.folder}/{leader['name']}/postmaster.pid") as file:
            postmaster = int(file.readline())
        os.killpg(leader["patroni"].pid, signal.SIGKILL)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)], stdout=subprocess.PIPE).stdout
        for pid in [postmaster, *map(int, children.split())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        leader["patroni"].wait()
        self.wait(lambda: self.is_leader(other), 90, "nobody took over")
        took = time.monotonic() - started
        self.begin(leader)
        self.wait(self.has_standby, 90, "the old leader did not come back")
        return took

    def end(self):
        for process in reversed(self.running):
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        time.sleep(2)
        for process in self.running:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for node in self.nodes:
            pid = f"{self.folder}/{node['name']}/postmaster.pid"
            if os.path.exists(pid):
                with open(pid) as file:
                    try:
                        os.kill(int(file.readline()), signal.SIGKILL)
                    except ProcessLookupError:
                        pass
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", required=True, help="the program")
    parser.add_argument("--rounds", type=int, default=3, help="how often the leader is killed")
    options = parser.parse_args()
    folder, cluster, failures, took = tempfile.mkdtemp(), Cluster(), [], []
    try:
        server = Server(options.server, cluster.url, folder)
        print(HEAD, flush=True)
        gaps = []

        def kill():
            # Until a task is made again, seen from outside.
            result = {}

            def watch():
                # The first failure, then the first success after it.
                started, failed = time.monotonic(), False
                while True:
                    try:
                        status = server.ask("POST", "/api/watch/tasks", "watch", {"title": "t"})[0]
                    except OSError:
                        status = None
                    failed = failed or status != 201
                    if failed and status == 201:
                        result["back"] = time.monotonic() - started
                        return
                    time.sleep(0.05)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            took.append(cluster.kill_leader())
            watcher.join(60)
            gaps.append(result.get("back", 999))

        failures += fault("the leader of a Patroni cluster is killed", server, kill, options.rounds, pause=(2, 3))
        for ours, theirs in zip(gaps, took):
            print(f"Patroni had a leader after {theirs:.1f} s, the server served again after {ours:.1f} s")
            if ours > theirs + 2:
                failures.append(f"it took {ours - theirs:.1f} s longer than Patroni")
        server.kill()
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(bool(failures))


main()

#!/usr/bin/env python3
"""Servers and databases that are killed while many write: is everything there that was answered, once?

    python3 tests/faults/crashes.py --server target/release/taskpact

kills the server (SIGKILL), freezes it (SIGSTOP), kills PostgreSQL (SIGKILL of all its processes, which is a crash), restarts
it, and ends its sessions, each many times under load, on SQLite and on PostgreSQL. Clients keep an account of what they were
answered. After each round the database must have just that: what was answered 201 is there; what was not answered is there
once or not at all; what was sent with a key is there once, however often it was sent. It prints a row for each fault.

Everything stays on loopback. Only the standard library and PostgreSQL's programs are needed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from common import HEAD, Server, fault, free_port, programs


class Postgres:
    """A private one, which syncs to the disk, as a real one does."""

    def __init__(self):
        self.bin, self.port = programs(), free_port()
        self.folder = tempfile.mkdtemp()
        # It refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, "postgres")
        self.data, self.url = os.path.join(self.folder, "data"), f"postgres://taskpact@127.0.0.1:{self.port}/postgres"
        initdb = [os.path.join(self.bin, "initdb"), "-D", self.data, "-U", "taskpact", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **self.user)
        self.log = open(os.path.join(self.folder, "log"), "w")
        self.start()

    def start(self):
        command = [os.path.join(self.bin, "postgres"), "-D", self.data, "-p", str(self.port),
                   "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=100"]
        self.process = subprocess.Popen(command, cwd="/", stdout=self.log, stderr=self.log, **self.user)
        deadline = time.monotonic() + 30
        while self.sql("select 1", check=False):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("PostgreSQL did not start: " + open(self.log.name).read()[-2000:])
            time.sleep(0.05)

    def kill(self):
        """As a machine that loses its power, but for the disk."""
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], stdout=subprocess.PIPE).stdout
        for pid in [self.process.pid, *map(int, children.split())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        time.sleep(0.2)

    def restart(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.start()

    def sql(self, statement, check=True):
        psql = shutil.which("psql") or os.path.join(self.bin, "psql")
        silent = {"stdout": subprocess.DEVNULL, "stderr": None if check else subprocess.DEVNULL}
        return subprocess.run([psql, "-X", "-q", "-d", self.url, "-c", statement], check=check, **silent).returncode

    def end(self):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", required=True, help="the program")
    parser.add_argument("--rounds", type=int, default=10, help="how often each fault happens")
    parser.add_argument("--only", help="the faults whose name has this in it")
    options = parser.parse_args()
    folder, failures = tempfile.mkdtemp(), []
    print(HEAD, flush=True)

    def each(name, server, act):
        if not options.only or options.only in name:
            failures.extend(fault(name, server, act, options.rounds))

    def again(server):
        server.kill()
        server.start()

    sqlite = Server(options.server, f"sqlite://{folder}/tasks.db", folder)
    each("SQLite: the server is killed", sqlite, lambda: again(sqlite))
    each("SQLite: the server is frozen for 0.5 s", sqlite, sqlite.freeze)
    sqlite.kill()

    postgres = Postgres()
    try:
        server = Server(options.server, postgres.url, folder)
        each("PostgreSQL: the server is killed", server, lambda: again(server))
        each("PostgreSQL: the server is frozen for 0.5 s", server, server.freeze)
        ends = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taskpact'"
        each("PostgreSQL: its sessions are ended", server, lambda: postgres.sql(ends))
        each("PostgreSQL is restarted", server, postgres.restart)

        def crash():
            postgres.kill()
            postgres.start()

        each("PostgreSQL is killed", server, crash)
        server.kill()
    finally:
        postgres.end()
    shutil.rmtree(folder, ignore_errors=True)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(bool(failures))


main()

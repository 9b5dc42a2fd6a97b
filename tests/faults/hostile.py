#!/usr/bin/env python3
"""What an honest user feels while others keep the server waiting, and what that costs in memory.

    python3 tests/faults/hostile.py --server target/release/taskpact

starts the server on SQLite in a folder of its own, asks it as an honest user does, with and without each kind of bad
connection, and prints a table. It fails if an honest request fails, if p95 with bad connections is above the bound, or if the
server takes more memory than the bound. Everything stays on loopback. Only the standard library is needed.
"""

import argparse
import http.client
import json
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time

from common import Server, token

BAD = 1100


class Measured(Server):
    """A server whose memory is looked at."""

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as refs:
            refs.write("5")


def honest(server, seconds):
    """An honest user, each request on a connection of its own: times in ms, and failures."""
    times, failures = [], []
    head = {"Authorization": f"Bearer {token('honest')}"}
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        started = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            if count % 4 == 0:
                body = json.dumps({"title": f"task {count}"})
                connection.request("POST", "/api/honest/tasks", body, {**head, "Content-Type": "application/json"})
            else:
                connection.request("GET", "/api/honest/tasks?limit=20", headers=head)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status not in (200, 201):
                failures.append(answer.status)
        except OSError as error:
            failures.append(repr(error))
        times.append((time.monotonic() - started) * 1000)
        count += 1
        time.sleep(0.002)
    return times, failures


def p95(times):
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]


def connect(server, sends, count):
    peers = []
    for n in range(count):
        peer = socket.create_connection(("127.0.0.1", server.port), 20)
        if sends:
            peer.sendall(sends(n) if callable(sends) else sends)
        peers.append(peer)
    return peers


def drip(peers, stop):
    """A byte on each connection, again and again."""
    while not stop.is_set():
        for peer in peers:
            try:
                peer.send(b"x")
            except OSError:
                pass
        stop.wait(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", required=True, help="the program")
    parser.add_argument("--seconds", type=float, default=12, help="how long each part of a row takes")
    parser.add_argument("--only", help="the rows whose name has this in it")
    parser.add_argument("--max-ratio", type=float, default=1.2, help="p95 with bad connections against p95 without")
    parser.add_argument("--max-memory", type=float, default=120, help="the peak, in MiB")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))

    folder = tempfile.TemporaryDirectory()
    server = Measured(options.server, f"sqlite://{folder.name}/tasks.db", folder.name)
    failed = []
    # Ten users with a thousand tasks of some 350 bytes.
    users = [f"rich-{n}" for n in range(10)]

    def fill(user):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        head = {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"}
        for n in range(1000):
            connection.request("POST", f"/api/{user}/tasks", json.dumps({"title": f"{n}", "description": "x" * 100}), head)
            connection.getresponse().read()

    threads = [threading.Thread(target=fill, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def row(name, sends=None, count=BAD, drips=False):
        if options.only and options.only not in name:
            return
        base, failures = honest(server, options.seconds)
        server.forget_peak()
        stop = threading.Event()
        started = time.monotonic()
        peers = connect(server, sends, count) if count else []
        connected = time.monotonic() - started
        dripping = threading.Thread(target=drip, args=(peers, stop))
        if drips:
            dripping.start()
        times, more = honest(server, options.seconds)
        stop.set()
        if drips:
            dripping.join()
        again, last = honest(server, options.seconds)
        without = p95(base + again)
        ratio = p95(times) / without
        peak = server.memory()
        for peer in peers:
            peer.close()
        print(f"| {name} | {without:.2f} | {p95(times):.2f} | {ratio:.2f} | {max(times):.0f} | "
              f"{len(failures + more + last)} of {len(base + times + again)} | {peak:.0f} | {connected:.1f} |", flush=True)
        if failures or more or last:
            failed.append(f"{name}: {(failures + more + last)[:3]}")
        if ratio > options.max_ratio:
            failed.append(f"{name}: p95 is {ratio:.2f} times as long")
        if peak > options.max_memory:
            failed.append(f"{name}: {peak:.0f} MiB")
        time.sleep(1)

    print("| bad connections | p95 without, ms | p95 with, ms | ratio | slowest, ms | failed | peak, MiB | connected in, s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    head = f"POST /api/rich-0/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('rich-0')}\r\n"
    body = "Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n{"
    lists = [f"GET /api/{user}/tasks?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
             for user in users]
    row("none", count=0)
    row(f"{BAD} that send nothing")
    row(f"{BAD} with half a head", b"GET /health HTTP/1.1\r\nHost: x\r\n")
    row(f"{BAD} with a head, a byte at a time", b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", drips=True)
    row(f"{BAD} with a body, a byte at a time", (head + body).encode(), drips=True)
    row("150 with 60 kB of a head that does not end", b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 60_000, 150)
    row("100 who ask for four lists of 1,000 and read nothing", lambda n: (lists[n % len(lists)] * 4).encode(), 100)
    row("900 who ask for four lists of 1,000 and read nothing", lambda n: (lists[n % len(lists)] * 4).encode(), 900)
    row("300 who ask for /docs and read nothing", b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n", 300)

    server.process.terminate()
    server.process.wait(30)
    server.log.seek(0)
    lines = server.log.read().splitlines()
    print(f"\nThe server has logged {len(lines)} warnings and errors.")
    for line in lines[:8]:
        print("   ", line[:200])
    for what in failed:
        print("FAILED", what)
    sys.exit(bool(failed))


main()

"""What the checks of faults share."""

import base64
import glob
import hashlib
import hmac
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

WRITERS = 12
HEAD = """| fault, under load | times | answers | lost | doubled | slowest answer, s | longest without a success, s |
|---|--:|---|--:|--:|--:|--:|"""
SECRET = "a secret of the checks, 32 bytes or more"


def token(user):
    """A token that the server accepts, for two hours."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"sub": user, "exp": int(time.time()) + 7200})
    signature = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def free_port():
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def programs():
    for folder in os.environ["PATH"].split(":") + sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
        if os.path.exists(os.path.join(folder, "initdb")) and os.path.exists(os.path.join(folder, "postgres")):
            return folder
    sys.exit("There is no PostgreSQL here (Debian: `apt-get install postgresql`).")


class Server:
    def __init__(self, program, url, folder, settings={}):
        self.program, self.port, self.folder = os.path.abspath(program), free_port(), folder
        self.env = {"BETTER_AUTH_SECRET": SECRET, "PORT": str(self.port), "DATABASE_URL": url, "TASKPACT_LOG__FILTER": "warn", **settings}
        self.log = open(os.path.join(folder, f"log-{self.port}"), "w+")
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.program], cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + 40
        while True:
            try:
                if self.ask("GET", "/health", "nobody")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                sys.exit("the server did not start: " + open(self.log.name).read())
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        self.process.send_signal(signal.SIGCONT)

    def ask(self, method, path, user, body=None, key=None, timeout=20, connection=None):
        own = connection is None
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {token(user)}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        try:
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, dict(answer.getheaders()), text
        finally:
            if own:
                connection.close()


class Writer(threading.Thread):
    """Makes tasks, one after another, and keeps account."""

    def __init__(self, server, name, stop):
        super().__init__(daemon=True)
        self.server, self.user, self.stop = server, name, stop
        self.answered, self.unknown, self.keyed = [], [], []
        self.statuses, self.slowest, self.last_ok, self.gap = {}, 0.0, time.monotonic(), 0.0

    def run(self):
        n = 0
        while not self.stop.is_set():
            n += 1
            title, key = f"{self.user} {n}", f"{self.user}-{n}" if n % 2 else None
            while True:
                started = time.monotonic()
                try:
                    status, _, _ = self.server.ask("POST", f"/api/{self.user}/tasks", self.user, {"title": title}, key)
                except (OSError, http.client.HTTPException):
                    status = "none"
                took = time.monotonic() - started
                self.slowest = max(self.slowest, took)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == 201:
                    self.gap = max(self.gap, time.monotonic() - self.last_ok)
                    self.last_ok = time.monotonic()
                    (self.keyed if key else self.answered).append(title)
                    break
                if not key:
                    self.unknown.append(title)
                    time.sleep(0.01)
                    break
                # With a key it is sent until it is answered.
                if self.stop.is_set() and self.stop.given_up:
                    self.unknown.append(title)
                    break
                time.sleep(0.01)

    def check(self):
        """What is lost, and what is there twice."""
        found, query = {}, "limit=1000"
        while query:
            status, headers, text = self.server.ask("GET", f"/api/{self.user}/tasks?{query}", self.user)
            assert status == 200, (status, text)
            for task in json.loads(text):
                found[task["title"]] = found.get(task["title"], 0) + 1
            cursor = headers.get("next-cursor") or headers.get("Next-Cursor")
            query = cursor and f"limit=1000&cursor={cursor}"
        lost = [title for title in self.answered + self.keyed if title not in found]
        doubled = [title for title, count in found.items() if count > 1]
        known = set(self.answered + self.keyed + self.unknown)
        strange = [title for title in found if title not in known]
        return lost, doubled, strange


class Stop(threading.Event):
    given_up = False


def fault(name, server, act, rounds, pause=(0.2, 0.6)):
    stop = Stop()
    run = random.randrange(10**9)
    writers = [Writer(server, f"w{n}-{run}", stop) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(rounds):
        time.sleep(random.uniform(*pause))
        act()
    time.sleep(1.5)
    stop.set()
    for writer in writers:
        writer.join(30)
        if writer.is_alive():
            Stop.given_up = True
            writer.join(30)
    lost, doubled, strange, statuses = [], [], [], {}
    for writer in writers:
        for total, more in zip((lost, doubled, strange), writer.check()):
            total.extend(more)
        for status, count in writer.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    answers = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items(), key=str))
    slowest, gap = max(writer.slowest for writer in writers), max(writer.gap for writer in writers)
    print(f"| {name} | {rounds} | {answers} | {len(lost)} | {len(doubled)} | {slowest:.1f} | {gap:.1f} |", flush=True)
    undeclared = [status for status in statuses if status not in (201, 503, "none")]
    bad = []
    if lost or doubled or strange or undeclared:
        bad.append(f"{name}: lost {lost[:3]}, doubled {doubled[:3]}, strange {strange[:3]}, statuses {undeclared}")
    if not statuses.get(201, 0) > rounds:
        bad.append(f"{name}: hardly anything was written")
    return bad

"""What each client of Python goes through; rounds.mjs is the same for those of JavaScript. The plan comes from pools.mjs.

`send` takes a request of the plan (method, path, headers, body) and gives back an `Answer`. All that is asked of it is to
use one pool of connections.
"""

import asyncio
import json
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

with open(os.environ["PLAN"], encoding="utf-8") as file:
    PLAN = json.load(file)
# As HTTP has it: a text would be counted in characters by some, in bytes by others.
for request in PLAN["refused"]:
    if "body" in request:
        request["body"] = request["body"].encode()


@dataclass
class Answer:
    status: int
    encoding: str | None
    body: Any
    sent: str | None


async def rounds(send, connections):
    """Refusals and valid requests in turn. On standard output goes what pools.mjs wants to know."""
    where = "at first"

    async def expect(request, status, problem=None):
        answer = await send(request["method"], request["path"], request["headers"], request.get("body"))
        if answer.status != status or (problem and answer.body["type"] != problem):
            said = json.dumps(answer.body)[:300]
            raise AssertionError(f"expected {status} {problem or ''}, was answered {answer.status} {said}")
        return answer

    try:
        for turn in range(1, PLAN["rounds"] + 1):
            for refused in PLAN["refused"]:
                title = where = f"round {turn}, {refused['name']}"
                await expect(refused, refused["status"], refused["type"])
                where += ", the valid POST after it"
                await expect({**PLAN["create"], "body": json.dumps({"title": title}).encode()}, 201)
        where = "the list"
        listed = await expect(PLAN["list"], 200)
        where = "PATCH without a body"
        path = PLAN["complete"]["path"].replace("{task_id}", listed.body[0]["id"])
        completed = await expect({**PLAN["complete"], "path": path}, 200)
    except Exception:
        sys.exit(f"{where}: {traceback.format_exc()}")
    said = {"list": listed.body, "encoding": listed.encoding, "completedAs": completed.sent, "connections": connections()}
    print(json.dumps(said))


def run(send, connections):
    """The same, for a client that waits."""

    async def at_once(*args):
        return send(*args)

    asyncio.run(rounds(at_once, connections))

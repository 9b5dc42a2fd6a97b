import asyncio

import aiohttp

from rounds import PLAN, Answer, rounds


async def main():
    connected = []
    trace = aiohttp.TraceConfig()

    async def count(*_):
        connected.append(None)

    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), trace_configs=[trace]) as session:

        async def send(method, path, headers, body):
            async with session.request(method, PLAN["url"] + path, headers=headers, data=body) as answer:
                sent = answer.request_info.headers.get("Content-Type")
                body = await answer.json(content_type=None)
                return Answer(answer.status, answer.headers.get("Content-Encoding"), body, sent)

        await rounds(send, lambda: len(connected))


asyncio.run(main())

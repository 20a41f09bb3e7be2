"""How well the load client's TTFT and TPOT agree with what a server really sent, by streams at once.

    python benchmarks/load_accuracy.py [CLIENT ...]

The golden server logs when it sent each chunk, on the clock that the client uses. Streams are sent steadily (each on
a clock of its own) or in steps (all at the ticks of one clock, as an engine's iterations send them: the harder case).
aiohttp and httpx, where they are installed, do the same with a time taken after each chunk that they give.
"""

import asyncio
import importlib.util
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from runners.load.connection import TimedSelector
from runners.load.stream import Answer, Body, Client
from tests.runners.load.golden_server import GoldenServer, Plan

STREAMS = (1, 10, 50, 100, 200)
ROUNDS = 3
TOKENS = 60
PROMPT_TOKENS = 200
PROMPT = json.dumps(list(range(1000, 1000 + PROMPT_TOKENS))).encode()


@dataclass(frozen=True)
class Timed:
    name: str
    ttft: float
    tpot: float


Ask = Callable[[str], Awaitable[Timed]]


async def users(streams: int, ask: Ask) -> list[Timed]:
    """Each user sends one request after another; the first of each, which connects, is left out."""

    async def user(number: int) -> list[Timed]:
        await asyncio.sleep(number * 0.37 / streams)  # users do not begin at once
        return [await ask(f"{number}-{turn}") for turn in range(ROUNDS + 1)][1:]

    return [timed for found in await asyncio.gather(*map(user, range(streams))) for timed in found]


def with_servetune(url: str, streams: int) -> list[Timed]:
    selector = TimedSelector()

    async def work() -> list[Timed]:
        async with Client("golden", read_at=lambda: selector.returned) as client:

            async def ask(name: str) -> Timed:
                body = Body(name=name, prompt=PROMPT, input_tokens=PROMPT_TOKENS, output_tokens=TOKENS)
                answer = await client.ask(url, body)
                assert isinstance(answer, Answer), answer
                assert answer.tpot is not None
                return Timed(name, answer.ttft, answer.tpot)

            return await users(streams, ask)

    return selector.run(work())


async def timed(name: str, sent: float, chunks: AsyncIterator[bytes]) -> Timed:
    times = []
    async for data in chunks:
        now = time.perf_counter()
        times += [now] * data.count(b'"text"')
    return Timed(name, times[0] - sent, (times[-1] - times[0]) / (TOKENS - 1))


def body() -> bytes:
    options = {"model": "golden", "max_tokens": TOKENS, "stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(options).encode()[:-1] + b',"prompt":' + PROMPT + b"}"


def with_aiohttp(url: str, streams: int) -> list[Timed]:
    import aiohttp

    async def work() -> list[Timed]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(name: str) -> Timed:
                data, headers = body(), {"X-Request-Id": name, "Content-Type": "application/json"}
                sent = time.perf_counter()
                async with session.post(f"{url}/v1/completions", data=data, headers=headers) as response:
                    return await timed(name, sent, response.content.iter_any())

            return await users(streams, ask)

    return asyncio.run(work())


def with_httpx(url: str, streams: int) -> list[Timed]:
    import httpx

    async def work() -> list[Timed]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as session:

            async def ask(name: str) -> Timed:
                data, headers = body(), {"X-Request-Id": name, "Content-Type": "application/json"}
                sent = time.perf_counter()
                async with session.stream("POST", f"{url}/v1/completions", content=data, headers=headers) as response:
                    return await timed(name, sent, response.aiter_raw())

            return await users(streams, ask)

    return asyncio.run(work())


CLIENTS = {"servetune": with_servetune, "aiohttp": with_aiohttp, "httpx": with_httpx}


def compare(client: str, streams: int, plan: Plan) -> str:
    with GoldenServer(plan) as server:
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        found = CLIENTS[client](server.url, streams)
        used = resource.getrusage(resource.RUSAGE_SELF)
        log = {sent.name: sent for sent in server.log()}
    true = [log[each.name] for each in found]
    ttft = np.array([sent.chunks[0] - sent.received for sent in true])
    tpot = np.array([(sent.chunks[-1] - sent.chunks[0]) / (TOKENS - 1) for sent in true])
    off_ttft = np.abs(np.array([each.ttft for each in found]) - ttft) * 1000
    off_tpot = np.abs(np.array([each.tpot for each in found]) - tpot) * 1000
    seconds = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    return (
        f"{client:10s} {'steps' if plan.steps else 'steady':6s} {streams:7d} {np.median(ttft) * 1000:8.2f}"
        f" {np.median(off_ttft):7.2f} {np.percentile(off_ttft, 95):7.2f} {np.median(tpot) * 1000:8.2f}"
        f" {np.median(off_tpot):7.3f} {np.percentile(off_tpot, 95):7.3f}"
        f" {seconds * 1e6 / (streams * (ROUNDS + 1) * TOKENS):8.1f}"
    )


if __name__ == "__main__":
    print("milliseconds; `off` is the absolute difference to the truth, for each request")
    print("client     sent   streams     TTFT off p50 off p95     TPOT off p50 off p95 us/chunk")
    clients = sys.argv[1:] or [name for name in CLIENTS if name == "servetune" or importlib.util.find_spec(name)]
    for steps in (False, True):
        for streams in STREAMS:
            for client in clients:
                print(compare(client, streams, Plan(ttft_s=0.05, tpot_s=0.02, steps=steps)), flush=True)

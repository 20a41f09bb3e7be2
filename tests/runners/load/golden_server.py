"""A server with an OpenAI-compatible streaming API whose token times are known: it logs when it sent each chunk.

`python golden_server.py '{"ttft_s": 0.1}'` prints its port. It speaks HTTP/1.1 over asyncio's transports by hand: what
it logs is the time at which `send` returned, on the clock of `time.perf_counter`, which Linux shares among processes.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

LIMIT = 2**24
EXTRAS = ("ignore_eos", "min_tokens", "stream_options")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the server does. `fail` is answers, break, error, hang or slow, done to every `fail_every`-th request.

    `knows` are the fields of a request beyond OpenAI's that it takes; others are refused, as `transformers serve` does.
    `usage` is where it gives its counts. In `steps`, tokens of all streams are sent at the ticks of one clock, as an
    engine's iterations send them.
    """

    model: str = "golden"
    ttft_s: float = 0.05
    tpot_s: float = 0.01
    tokens_per_chunk: int = 1
    steps: bool = False
    fail: str = ""
    fail_every: int = 1
    fail_after_chunks: int = 3
    fail_from: int = 0
    vocabulary: int = 128_000
    ignores_length: bool = False
    key: str = ""
    usage: Literal["event", "last chunk", "whole answers", ""] = "event"
    knows: Sequence[str] = EXTRAS
    done: bool = True
    ids: bool = True
    refuses_in_stream: bool = False
    seats: int = 10_000
    histograms: bool = True


@dataclass(kw_only=True)
class Sent:
    """The log of one request: seconds."""

    name: str
    received: float
    prompt_tokens: int
    asked_tokens: int
    chunks: list[float] = field(default_factory=list)
    prompt_head: object = None
    complete: bool = False


class GoldenServer:
    """The server as a process of its own, dead when the `with` ends."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, json.dumps(asdict(self.plan))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def kill(self) -> None:
        self._process.kill()

    def log(self) -> list[Sent]:
        with urllib.request.urlopen(f"{self.url}/log", timeout=60) as answer:
            return [Sent(**row) for row in json.load(answer)]


class _Server:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent: list[Sent] = []
        self.running = asyncio.Semaphore(plan.seats)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                received = time.perf_counter()
                lines = head.split("\r\n")
                headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.answer(lines[0].split()[:2], headers, body, received, writer)
        except (asyncio.IncompleteReadError, ConnectionError, _HungUpError):
            pass
        finally:
            writer.close()

    async def answer(self, what, headers, body, received, writer) -> None:
        method, path = what
        if self.plan.key and headers.get("authorization") != f"Bearer {self.plan.key}" and path.startswith("/v1"):
            refused = {"error": {"message": f"wrong key {headers.get('authorization')}"}}
            return self.whole(writer, 401, refused)
        if path == "/log":
            return self.whole(writer, 200, [asdict(sent) for sent in self.sent])
        if path == "/metrics" and self.plan.histograms:
            return self.whole(writer, 200, self.metrics().encode())
        if path == "/v1/models":
            return self.whole(writer, 200, {"object": "list", "data": [{"id": self.plan.model, "object": "model"}]})
        if method == "POST" and path in ("/v1/completions", "/v1/chat/completions"):
            return await self.complete(
                json.loads(body), path.endswith("chat/completions"), received, writer, headers.get("x-request-id", "")
            )
        return self.whole(writer, 404, {"error": {"message": "no such path"}})

    def whole(self, writer, status, content) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)

    def refuse(self, writer, error) -> None:
        if not self.plan.refuses_in_stream:
            return self.whole(writer, 400, error)
        writer.write(STREAM + framed(error) + framed(b"[DONE]") + b"0\r\n\r\n")
        return None

    def prompt_tokens(self, request, chat) -> int:
        if chat:
            return 5 + sum(len(message["content"].split()) for message in request["messages"])
        prompt = request["prompt"]
        return len(prompt) if isinstance(prompt, list) else len(prompt.split())

    def complaint(self, request) -> tuple[int, str]:
        """Status and message for a request that it does not take; 0 for one that it does."""
        if request["model"] != self.plan.model:
            return 404, f"no model {request['model']}"
        if unknown := set(EXTRAS).intersection(request).difference(self.plan.knows):
            return 422, f"Unexpected fields in the request: {unknown}"
        if isinstance(request.get("prompt"), list) and not self.plan.ids:
            return 400, "prompt must be a string."
        return 0, ""

    async def complete(self, request, chat, received, writer, name) -> None:
        plan = self.plan
        status, message = self.complaint(request)
        if status:
            return self.whole(writer, status, {"error": {"message": message}})
        prompt = request.get("prompt")
        if isinstance(prompt, list) and max(prompt) >= plan.vocabulary:
            return self.refuse(writer, {"error": {"message": "token id out of vocabulary", "code": 400}})
        asked = request.get("max_tokens") or request["max_completion_tokens"]
        sent = Sent(name=name, received=received, prompt_tokens=self.prompt_tokens(request, chat), asked_tokens=asked)
        sent.prompt_head = prompt[:8] if isinstance(prompt, list) else None
        self.sent.append(sent)
        number = len(self.sent)
        fails = plan.fail if number > plan.fail_from and number % plan.fail_every == 0 else ""
        if fails == "error":
            return self.whole(writer, 500, {"error": {"message": "the engine is broken"}})
        if not request["stream"]:
            return self.whole(writer, 200, {"choices": [{"text": " word"}], **self.usage_of(sent, 1, "whole answers")})
        async with self.running:
            await self.stream(sent, chat, fails, writer)
        return None

    def usage_of(self, sent, produced, *where):
        if self.plan.usage not in (*where, "event"):
            return {}
        return {"usage": {"prompt_tokens": sent.prompt_tokens, "completion_tokens": produced}}

    async def stream(self, sent, chat, fails, writer) -> None:
        plan = self.plan
        slow = 5 if fails == "slow" else 1
        writer.write(STREAM)
        if chat:
            writer.write(self.event(chat, {"role": "assistant", "content": ""}, None))
        produced = max(sent.asked_tokens // 2, 1) if plan.ignores_length else sent.asked_tokens
        chunks = max(1, -(-produced // plan.tokens_per_chunk))
        whole = self.event(chat, " word" * plan.tokens_per_chunk, None)
        due = self.tick(sent.received + plan.ttft_s * slow)
        for index in range(chunks):
            await asyncio.sleep(due - time.perf_counter())
            if writer.transport.is_closing():
                return
            if index == plan.fail_after_chunks:
                await self.fail(fails, writer)
            rest = " word" * (produced - index * plan.tokens_per_chunk)
            finish = None if plan.usage == "last chunk" else "stop" if plan.ignores_length else "length"
            writer.write(whole if index < chunks - 1 else self.event(chat, rest, finish))
            sent.chunks.append(time.perf_counter())
            due = self.tick(sent.chunks[0] + plan.tpot_s * slow * (index + 1) * plan.tokens_per_chunk)
        if plan.usage == "event":
            writer.write(framed({"choices": [], **self.usage_of(sent, produced)}))
        if plan.usage == "last chunk":
            last = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
            writer.write(framed(last | self.usage_of(sent, produced, "last chunk")))
        if plan.done:
            writer.write(framed(b"[DONE]"))
        writer.write(b"0\r\n\r\n")
        sent.complete = True

    def tick(self, due: float) -> float:
        if not self.plan.steps:
            return due
        step = self.plan.tpot_s * self.plan.tokens_per_chunk
        return (due // step + 1) * step

    async def fail(self, fails, writer) -> None:
        if fails == "break":
            writer.transport.abort()
            raise _HungUpError
        if fails == "in_stream":
            writer.write(framed({"error": {"message": "out of memory"}}))
            writer.transport.abort()
            raise _HungUpError
        if fails == "hang":
            await asyncio.sleep(3600)

    def event(self, chat, content, finish) -> bytes:
        choice = {"index": 0, "logprobs": None, "finish_reason": finish}
        if chat:
            choice["delta"] = content if isinstance(content, dict) else {"content": content}
        else:
            choice["text"] = content
        kind = "chat.completion.chunk" if chat else "text_completion"
        envelope = {"id": "cmpl-0", "object": kind, "created": 1, "model": self.plan.model}
        return framed(envelope | {"choices": [choice], "usage": None})

    def metrics(self) -> str:
        done = [sent for sent in self.sent if sent.complete]
        ttft = [sent.chunks[0] - sent.received for sent in done]
        tpot = [(s.chunks[-1] - s.chunks[0]) / (s.asked_tokens - 1) for s in done if s.asked_tokens > 1]
        e2e = [sent.chunks[-1] - sent.received for sent in done]
        names = ("time_to_first_token_seconds", "request_time_per_output_token_seconds", "e2e_request_latency_seconds")
        lines = []
        for name, values in zip(names, (ttft, tpot, e2e), strict=True):
            lines += [f"# TYPE vllm:{name} histogram"]
            lines += [f'vllm:{name}_bucket{{model_name="{self.plan.model}",le="+Inf"}} {len(values)}.0']
            lines += [f'vllm:{name}_count{{model_name="{self.plan.model}"}} {len(values)}.0']
            lines += [f'vllm:{name}_sum{{model_name="{self.plan.model}"}} {sum(values)}']
        return "\n".join(lines) + "\n"


def framed(event) -> bytes:
    """A server-sent event in an HTTP chunk."""
    content = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return b"%x\r\n" % len(content) + content + b"\r\n"


class _HungUpError(Exception):
    """The connection is not answered further."""


async def _main(plan: Plan) -> None:
    golden = _Server(plan)
    server = await asyncio.start_server(golden.serve, "127.0.0.1", 0, limit=LIMIT, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        _main(Plan(**json.loads(Path(sys.argv[1]).read_text() if sys.argv[1].endswith(".json") else sys.argv[1])))
    )

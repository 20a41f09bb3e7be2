"""One streamed completion of an OpenAI-compatible server, timed chunk by chunk."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from runners.load.connection import (
    BROKEN_STREAM,
    HTTP_OK,
    WRONG_ANSWER,
    Connection,
    Feed,
    StaleConnectionError,
    StreamError,
    TimedSelector,
)
from search_spaces.errors import InputError

Endpoint = Literal["completions", "chat"]
PATHS: Mapping[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

MODELS_PATH = "/v1/models"
REFUSED = (401, 403)
CONNECT_LIMIT_S = 30.0

SHOWN = 300
"""Characters of a server's answer that a failure keeps."""

UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A request that was answered to its end. Times are in seconds on the clock of `time.perf_counter`.

    `sent` is before a connection is opened, where none is kept: a user waits for that too. `chunks` is when each
    chunk with tokens was read. Token counts are the server's own.
    """

    name: str
    sent: float
    chunks: tuple[float, ...]
    input_tokens: int
    output_tokens: int

    @property
    def ended(self) -> float:
        return self.chunks[-1]

    @property
    def ttft(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def tpot(self) -> float | None:
        """None where no token follows the first."""
        if self.output_tokens <= 1:
            return None
        return (self.chunks[-1] - self.chunks[0]) / (self.output_tokens - 1)

    @property
    def e2e(self) -> float:
        return self.chunks[-1] - self.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that was not answered to its end: a short class to count by, and what was seen."""

    sent: float
    ended: float
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What one request asks for; `prompt` is JSON already: encoding must not take time while a request is timed.

    `name` is sent along as X-Request-Id, to find the request in the server's log.
    """

    name: str
    prompt: bytes
    output_tokens: int


def base_url(url: str) -> str:
    """`http://host:8000/v1/` as `http://host:8000`. Raises InputError for what is no HTTP URL."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"a server's URL must begin with http:// or https://, but got {url[:100]!r}")
    return url.rstrip("/").removesuffix("/v1")


def read_key(api_key_env: str | None) -> str | None:
    """The API key in an environment variable. Raises InputError where the variable is not set."""
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env)
    if not key:
        raise InputError(f"the environment variable {api_key_env[:100]} holds no API key")
    return key


class Client:
    """Asks servers for streamed completions; one connection for each request in flight, kept for the next.

    It reads its sockets itself, with httptools for HTTP/1.1: a chunk's time is taken in the very callback that reads
    it (`read_at`), before any task is woken, which with aiohttp and httpx comes after the chunks of all other streams
    (benchmarks/load_accuracy.py). Its key stands in no failure. Use as an asynchronous context manager.
    """

    def __init__(
        self,
        model_name: str,
        *,
        endpoint: Endpoint = "completions",
        key: str | None = None,
        on_token: Callable[[float], None] = lambda _now: None,
        read_at: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.endpoint: Endpoint = endpoint
        self._head = b'{"model":' + json.dumps(model_name).encode()
        self._key = key
        self._on_token = on_token
        self._read_at = read_at
        self._idle: dict[str, list[Connection]] = {}
        self._open: set[Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open:
            connection.abort()

    async def ask(self, url: str, body: Body) -> Answer | Failure:
        """One streamed completion of exactly `body.output_tokens` tokens."""
        payload = self._request("POST", url, PATHS[self.endpoint], self._payload(body), name=body.name)
        reading = _Reading(self._on_token)
        sent = time.perf_counter()
        try:
            status, text = await self._exchange(url, payload, reading.feed)
            if status != HTTP_OK:
                return self._failed(sent, f"HTTP {status}", text.decode(errors="replace"))
            return reading.answer(body.name, sent)
        except StreamError as error:
            return self._failed(sent, error.cause, str(error))

    async def get(self, url: str, path: str) -> tuple[int, bytes]:
        """Status and body. Raises StreamError."""
        return await self._exchange(url, self._request("GET", url, path, b""), None)

    async def _exchange(self, url: str, payload: bytes, feed: Feed | None) -> tuple[int, bytes]:
        """A kept connection that the server has closed meanwhile is replaced, once."""
        while True:
            kept = self._idle.get(url)
            connection = kept.pop() if kept else await self._connect(url)
            fresh = not connection.used
            try:
                result = await connection.exchange(payload, feed)
            except StaleConnectionError as error:
                self._open.discard(connection)
                if fresh:
                    raise StreamError(BROKEN_STREAM, str(error)) from None
                continue
            except BaseException:
                self._open.discard(connection)
                connection.abort()
                raise
            if connection.reusable:
                self._idle.setdefault(url, []).append(connection)
            else:
                self._open.discard(connection)
                connection.abort()
            return result

    async def _connect(self, url: str) -> "Connection":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._read_at), parts.hostname or "", port, ssl=tls or None
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no connection within {CONNECT_LIMIT_S:.0f} s"
            raise StreamError(UNREACHABLE, f"{parts.scheme}://{parts.netloc}: {reason}") from None
        self._open.add(connection)
        return connection

    def _request(self, method: str, url: str, path: str, content: bytes, *, name: str = "") -> bytes:
        parts = urlsplit(url)
        lines = [
            f"{method} {parts.path}{path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "Accept: */*",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        ]
        lines += [f"X-Request-Id: {name}"] if name else []
        lines += [f"Authorization: Bearer {self._key}"] if self._key else []
        return "\r\n".join([*lines, "", ""]).encode() + content

    def _payload(self, body: Body) -> bytes:
        tokens = body.output_tokens
        limit = "max_completion_tokens" if self.endpoint == "chat" else "max_tokens"
        field = b"messages" if self.endpoint == "chat" else b"prompt"
        options = {
            limit: tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return self._head + b',"' + field + b'":' + body.prompt + b"," + json.dumps(options).encode()[1:]

    def _failed(self, sent: float, cause: str, seen: str) -> Failure:
        if self._key:
            seen = seen.replace(self._key, "***")
        return Failure(sent=sent, ended=time.perf_counter(), cause=cause, detail=" ".join(seen[:SHOWN].split()))


def served_models(url: str, api_key_env: str | None = None) -> list[str]:
    """The names under which a server offers its models, its own first.

    Raises InputError for a server that cannot be reached, refuses the key, or is no OpenAI-compatible one.
    """
    key = read_key(api_key_env)

    async def asked() -> tuple[int, bytes]:
        async with Client("", key=key) as client, asyncio.timeout(CONNECT_LIMIT_S):
            return await client.get(base_url(url), MODELS_PATH)

    try:
        status, content = TimedSelector().run(asked())
    except StreamError as error:
        raise InputError(f"{url}: {error.cause}: {error}") from None
    except TimeoutError:
        raise InputError(f"{url}: no answer to GET {MODELS_PATH} within {CONNECT_LIMIT_S:.0f} s") from None
    if status in REFUSED:
        raise InputError(f"{url}: HTTP {status}: the server wants an API key: name its variable with --api-key-env")
    try:
        models = [str(model["id"]) for model in json.loads(content)["data"]]
    except (ValueError, KeyError, TypeError):
        models = []
    if status != HTTP_OK or not models:
        raise InputError(f"{url}: no OpenAI-compatible server: GET {MODELS_PATH} gave HTTP {status} and no models")
    return models


MIDWAY, MIDWAY_SPACED = b'"finish_reason":null', b'"finish_reason": null'
"""What only a chunk with tokens holds, once the first has come: inside a JSON string its quotes would be escaped."""


class _Reading:
    """Server-sent events of one answer, as they come in."""

    def __init__(self, on_token: Callable[[float], None]) -> None:
        self.chunks: list[float] = []
        self._on_token = on_token
        self._rest = b""
        self._usage: Mapping[str, Any] = {}
        self._finished = False

    def feed(self, data: bytes, now: float) -> None:
        """All that one read brought has the same time. Raises StreamError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.chunks and (MIDWAY in line or MIDWAY_SPACED in line):
                self.chunks.append(now)
                self._on_token(now)
            elif line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._finished = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise StreamError(WRONG_ANSWER, data.decode(errors="replace")) from None
        if not isinstance(event, dict) or "error" in event:
            raise StreamError(self._cause(event), data.decode(errors="replace"))
        if event.get("usage"):
            self._usage = event["usage"]
        if any(map(_has_token, event.get("choices") or ())):
            self.chunks.append(now)
            self._on_token(now)

    def _cause(self, event: Any) -> str:
        """VLLM refuses a request for a stream with status 200 and the true status as the only event."""
        error = event.get("error") if isinstance(event, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        return f"HTTP {code}" if isinstance(code, int) and not self.chunks else "error in the stream"

    def answer(self, name: str, sent: float) -> Answer:
        """Raises StreamError for a stream that ended before its time, or without token counts."""
        if not self._finished:
            raise StreamError(BROKEN_STREAM, f"it ended after {len(self.chunks)} chunks without [DONE]")
        if not self.chunks:
            raise StreamError(WRONG_ANSWER, "the stream held no token")
        try:
            counts = int(self._usage["prompt_tokens"]), int(self._usage["completion_tokens"])
        except (KeyError, TypeError, ValueError):
            raise StreamError(WRONG_ANSWER, "the stream held no usage, which stream_options asked for") from None
        return Answer(name=name, sent=sent, chunks=tuple(self.chunks), input_tokens=counts[0], output_tokens=counts[1])


def _has_token(choice: Mapping[str, Any]) -> bool:
    """A chat may open with a chunk that only names the role: no token. A token's text may be empty."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "role" not in delta:
        return True
    return any(value for key, value in delta.items() if key != "role")

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
from search_spaces.engines.facts import Server
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
    chunk with tokens was read. Token counts are the server's own where it `counted`; else those asked for where the
    answer ended at its limit, and as many as chunks came where it ended before.
    """

    name: str
    sent: float
    chunks: tuple[float, ...]
    input_tokens: int
    output_tokens: int
    counted: bool = True

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

    `name` is sent along as X-Request-Id, to find the request in the server's log. `input_tokens` is how long the
    prompt is meant to be.
    """

    name: str
    prompt: bytes
    input_tokens: int
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
    (benchmarks/load_accuracy.py). What `server` does not honour is not asked for. Its key stands in no failure. Use as
    an asynchronous context manager.
    """

    def __init__(
        self,
        model_name: str,
        *,
        endpoint: Endpoint = "completions",
        server: Server = Server(),  # noqa: B008 frozen
        key: str | None = None,
        on_token: Callable[[float], None] = lambda _now: None,
        read_at: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.endpoint: Endpoint = endpoint
        self._server = server
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
        """One streamed completion of `body.output_tokens` tokens: exactly, where the server honours it."""
        payload = self._request("POST", url, PATHS[self.endpoint], self._payload(body, stream=True), name=body.name)
        reading = Reading(self._on_token)
        sent = time.perf_counter()
        try:
            status, text = await self._exchange(url, payload, reading.feed)
            if status != HTTP_OK:
                return self._failed(sent, f"HTTP {status}", text.decode(errors="replace"))
            return reading.answer(body, sent)
        except StreamError as error:
            return self._failed(sent, error.cause, str(error))

    async def count(self, url: str, body: Body) -> int | Failure | None:
        """The tokens of a prompt, by the server's count of a whole answer to it; None where it gives none."""
        payload = self._request("POST", url, PATHS[self.endpoint], self._payload(body, stream=False), name=body.name)
        sent = time.perf_counter()
        try:
            status, text = await self._exchange(url, payload, None)
        except StreamError as error:
            return self._failed(sent, error.cause, str(error))
        if status != HTTP_OK:
            return self._failed(sent, f"HTTP {status}", text.decode(errors="replace"))
        self._on_token(time.perf_counter())
        try:
            counts = _counts(json.loads(text)["usage"])
        except (ValueError, LookupError, TypeError):
            return None
        return counts and counts[0]

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

    def _payload(self, body: Body, *, stream: bool) -> bytes:
        tokens, honoured = body.output_tokens, self._server
        limit = "max_completion_tokens" if self.endpoint == "chat" else "max_tokens"
        field = b"messages" if self.endpoint == "chat" else b"prompt"
        options: dict[str, object] = {limit: tokens, "temperature": 0, "stream": stream}
        options |= {"min_tokens": tokens} if honoured.min_tokens else {}
        options |= {"ignore_eos": True} if honoured.ignore_eos else {}
        options |= {"stream_options": {"include_usage": True}} if stream and honoured.usage_in_streams else {}
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


class Reading:
    """Server-sent events of one answer, as they come in."""

    def __init__(self, on_token: Callable[[float], None]) -> None:
        self.chunks: list[float] = []
        self._on_token = on_token
        self._rest = b""
        self._usage: object = None
        self._finished = False
        self._at_limit = False
        self._emptily_ended: float | None = None

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
        usage = event.get("usage")
        self._usage = usage or self._usage
        choices = event.get("choices") or ()
        if reasons := [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]:
            self._finished = True  # some servers send no [DONE]
            self._at_limit = "length" in reasons
            self._emptily_ended = None if any(map(_has_text, choices)) else now
        if any(_has_text(choice) if usage else _has_token(choice) for choice in choices):
            self.chunks.append(now)
            self._on_token(now)

    def _cause(self, event: Any) -> str:
        """VLLM refuses a request for a stream with status 200 and the true status as the only event."""
        error = event.get("error") if isinstance(event, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        return f"HTTP {code}" if isinstance(code, int) and not self.chunks else "error in the stream"

    def answer(self, body: Body, sent: float) -> Answer:
        """Raises StreamError for a stream that ended before its time."""
        if not self._finished:
            raise StreamError(BROKEN_STREAM, f"it ended after {len(self.chunks)} chunks without [DONE]")
        counts = _counts(self._usage)
        chunks = self._chunks(counted=counts is not None)
        if not chunks:
            raise StreamError(WRONG_ANSWER, "the stream held no token")
        guessed = body.output_tokens if self._at_limit else len(chunks)
        input_tokens, output_tokens = counts or (body.input_tokens, guessed)
        return Answer(
            name=body.name,
            sent=sent,
            chunks=tuple(chunks),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            counted=counts is not None,
        )

    def _chunks(self, *, counted: bool) -> list[float]:
        """What only says why the answer ended is no token, unless it is all there is: a token's text may be empty."""
        if self._emptily_ended is None:
            return self.chunks
        if counted:
            return self.chunks or [self._emptily_ended]
        return self.chunks[:-1] or self.chunks


def _counts(usage: object) -> tuple[int, int] | None:
    """Tokens of the prompt and of the answer, where the server gives both."""
    match usage:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(answer)}:
            return prompt, answer
        case _:
            return None


def _has_text(choice: Mapping[str, Any]) -> bool:
    """A server that gives its counts with the reason for which it ended has sent every token before."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for key, value in delta.items() if key != "role")
    return bool(choice.get("text"))


def _has_token(choice: Mapping[str, Any]) -> bool:
    """A chat may open with a chunk that only names the role: no token. A token's text may be empty."""
    delta = choice.get("delta")
    return not isinstance(delta, dict) or "role" not in delta or _has_text(choice)

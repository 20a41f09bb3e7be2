"""One streamed completion of an OpenAI-compatible server, timed chunk by chunk."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import aiohttp

from search_spaces.errors import InputError

Endpoint = Literal["completions", "chat"]
PATHS: Mapping[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

SHOWN = 300
"""Characters of a server's answer that a failure keeps."""

UNREACHABLE = "unreachable"
BROKEN_STREAM = "stream broke"
WRONG_ANSWER = "not an OpenAI answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A request that was answered to its end. Times are in seconds on the clock of `time.perf_counter`.

    `sent` is when the request was handed to the connection pool, so that what it takes to connect is waited for by
    the client as by any user; `chunks` is when each chunk with tokens was read. Token counts are the server's own.
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

    Its key stands in no failure. Use as an asynchronous context manager.
    """

    def __init__(
        self,
        model_name: str,
        *,
        endpoint: Endpoint = "completions",
        key: str | None = None,
        on_token: Callable[[float], None] = lambda _now: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.endpoint: Endpoint = endpoint
        self._head = b'{"model":' + json.dumps(model_name).encode()
        self._key = key
        self._on_token = on_token
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            headers=headers,
            read_bufsize=2**20,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "a client is used inside `async with`"
        return self._session

    async def ask(self, url: str, body: Body) -> Answer | Failure:
        """One streamed completion of exactly `body.output_tokens` tokens."""
        payload, headers = self._payload(body), {"X-Request-Id": body.name}
        sent = self._clock()
        reading = _Reading(self._clock, self._on_token)
        try:
            async with self.session.post(url + PATHS[self.endpoint], data=payload, headers=headers) as response:
                if response.status != 200:  # noqa: PLR2004
                    text = await response.text(errors="replace")
                    return self._failed(sent, f"HTTP {response.status}", text)
                async for data in response.content.iter_any():
                    reading.feed(data)
            return reading.answer(body.name, sent)
        except _StreamError as error:
            return self._failed(sent, error.cause, str(error))
        except aiohttp.ClientConnectorError as error:
            return self._failed(sent, UNREACHABLE, str(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            seen = f"after {len(reading.chunks)} chunks: {type(error).__name__}: {error}"
            return self._failed(sent, BROKEN_STREAM, seen)

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
        return Failure(sent=sent, ended=self._clock(), cause=cause, detail=" ".join(seen[:SHOWN].split()))


class _StreamError(Exception):
    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class _Reading:
    """Server-sent events of one answer, as they come in."""

    def __init__(self, clock: Callable[[], float], on_token: Callable[[float], None]) -> None:
        self.chunks: list[float] = []
        self._clock = clock
        self._on_token = on_token
        self._rest = b""
        self._usage: Mapping[str, Any] = {}
        self._finished = False

    def feed(self, data: bytes) -> None:
        """All that one read brought has the same time. Raises _StreamError."""
        now = self._clock()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._finished = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise _StreamError(WRONG_ANSWER, data.decode(errors="replace")) from None
        if not isinstance(event, dict) or "error" in event:
            raise _StreamError("error in the stream", data.decode(errors="replace"))
        if event.get("usage"):
            self._usage = event["usage"]
        if any(map(_has_token, event.get("choices") or ())):
            self.chunks.append(now)
            self._on_token(now)

    def answer(self, name: str, sent: float) -> Answer:
        """Raises _StreamError for a stream that ended before its time, or without token counts."""
        if not self._finished:
            raise _StreamError(BROKEN_STREAM, f"it ended after {len(self.chunks)} chunks without [DONE]")
        if not self.chunks:
            raise _StreamError(WRONG_ANSWER, "the stream held no token")
        try:
            counts = int(self._usage["prompt_tokens"]), int(self._usage["completion_tokens"])
        except (KeyError, TypeError, ValueError):
            raise _StreamError(WRONG_ANSWER, "the stream held no usage, which stream_options asked for") from None
        return Answer(name=name, sent=sent, chunks=tuple(self.chunks), input_tokens=counts[0], output_tokens=counts[1])


def _has_token(choice: Mapping[str, Any]) -> bool:
    """A chat may open with a chunk that only names the role: no token. A token's text may be empty."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "role" not in delta:
        return True
    return any(value for key, value in delta.items() if key != "role")

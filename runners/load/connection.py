"""HTTP/1.1 over sockets of its own, which knows when each part of an answer could be read."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import httptools

Result = TypeVar("Result")
Feed = Callable[[bytes, float], None]
"""Takes a part of an answer's body, and the time at which it could be read."""

HTTP_OK = 200
READ_BYTES = 16 * 1024

BROKEN_STREAM = "stream broke"
WRONG_ANSWER = "not an OpenAI answer"


class TimedSelector(selectors.DefaultSelector):
    """Knows when the event loop was last told which sockets can be read.

    That is when all of them had something to read: the time of their chunks, though they are read one after another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.returned = time.perf_counter()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(timeout)
        self.returned = time.perf_counter()
        return events

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """In an event loop of its own."""
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self)) as runner:
            return runner.run(work)


class StreamError(Exception):
    """An exchange with a server that did not come to its end; `cause` is a short class to count by."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class StaleConnectionError(Exception):
    """The connection was closed before the server said anything."""


class Connection(asyncio.BufferedProtocol):
    """One HTTP/1.1 connection, for one exchange at a time."""

    def __init__(self, read_at: Callable[[], float]) -> None:
        self.used = False
        self.reusable = False
        self._read_at = read_at
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._done: asyncio.Future[tuple[int, bytes]] | None = None

    async def exchange(self, payload: bytes, feed: Feed | None) -> tuple[int, bytes]:
        """Status and body; the body of an OK goes to `feed` as it comes in. Raises StreamError."""
        if self._closed or self._transport is None:
            raise StaleConnectionError("closed by the server")
        self._feed = feed
        self._parser = httptools.HttpResponseParser(self)
        self._now = 0.0
        self._body: list[bytes] = []
        self._streams = self._heard = self.reusable = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return await self._done

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 the same for any size
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._now = self._read_at()
        if self._done is None or self._done.done():
            self.reusable = False
            return
        self._heard = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error.__context__, StreamError) else None
            self._fail(cause or StreamError(WRONG_ANSWER, f"{type(error).__name__}: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._done is None or self._done.done():
            return
        reason = f"the server closed the connection{f': {exc}' if exc else ''}"
        if not self._heard:
            self._done.set_exception(StaleConnectionError(reason))
        else:
            self._fail(StreamError(BROKEN_STREAM, reason))

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        self._streams = self._feed is not None and self._parser.get_status_code() == HTTP_OK

    def on_body(self, data: bytes) -> None:
        if self._streams and self._feed is not None:
            self._feed(data, self._now)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self.used = True
        self.reusable = bool(self._parser.should_keep_alive()) and not self._closed
        if self._done is not None and not self._done.done():
            self._done.set_result((self._parser.get_status_code(), b"".join(self._body)))

    def _fail(self, error: StreamError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

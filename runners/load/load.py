"""Load: sends a workload to servers that are up, times every token, and says what was seen as a Measurement."""

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from runners.load.connection import HTTP_OK, StreamError, TimedSelector
from runners.load.histograms import Totals
from runners.load.prompts import prepare
from runners.load.schedule import requests_of
from runners.load.stopping import LOOK_GROWTH, Decision, Limit, Stopping
from runners.load.stream import Answer, Body, Client, Endpoint, Failure, base_url, read_key
from runners.load.window import Window
from runners.measurement import Measurement, Metric, Percentiles
from runners.runner import RunFailedError
from runners.workload.workload import ClosedLoop, LoadedWorkload, Replay, Request
from search_spaces.engines.facts import Server

if TYPE_CHECKING:
    from types import FrameType

HANG = "hang under load"
LATE = "load not sent on time"
OUT_OF_TIME = "time limit under load"

WARM_UP = 3
FEWEST_WARM_UPS = 64
"""An open loop is counted once three times as many requests are done as are in flight, and 64 at least: as
`Simulated` counts."""

MOST_FAILURES_IN_A_ROW = 20
FEWEST_REQUESTS = 50
"""Answers that a run which its time limit ended must have, to be a measurement."""

ON_TIME_S = 0.02
ON_TIME_SHARE = 0.95
"""An open loop is valid when so many of its requests were sent within ON_TIME_S of when they were due."""

METRICS_PATH = "/metrics"
METRICS_LIMIT_S = 10.0

Ended = Literal["all answered", "hopeless", "time limit"] | Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a run is over before all is answered, or fails.

    `alive` is called about every second and ends the run by what it raises. No token for `stall_limit_s` while
    requests wait is a hang. A run that reaches `time_limit_s` counts where FEWEST_REQUESTS were answered. A run ends
    early when `limits` are decided (see `Stopping`), or when it is `hopeless`: that is asked from time to time of what
    was measured so far, with a throughput that is higher than the true one in all but 1 of 100 runs or so.
    """

    time_limit_s: float = 1800
    stall_limit_s: float = 60
    alive: Callable[[], None] = lambda: None
    limits: Sequence[Limit] = ()
    hopeless: Callable[[Measurement], bool] = lambda _measured: False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """A measurement, and how it came about.

    `answers` are the counted ones. `failures` counts by cause, those of the warm-up included. `send_delays` are in
    seconds, of an open loop's requests. `warm_up` is how many requests ended before the counted ones. `by_server` has
    the mean latencies (seconds) of the same window by the servers' own histograms, where they keep them.
    """

    measurement: Measurement
    answers: tuple[Answer, ...]
    ended: Ended
    warm_up: int
    failures: dict[str, int]
    send_delays: Percentiles | None
    by_server: Mapping[Metric, float] = field(default_factory=dict)


STRICT = Rules()


def load_report(
    urls: Sequence[str],
    model_name: str,
    loaded: LoadedWorkload,
    *,
    gpus: int,
    endpoint: Endpoint = "completions",
    server: Server = Server(),  # noqa: B008 frozen
    api_key_env: str | None = None,
    rules: Rules = STRICT,
    nonce: int | None = None,
) -> LoadReport:
    """Sends the workload to `urls` (replicas) in turn, and measures it.

    What `server` does not honour is not asked for, and said in the measurement's `not_had`: such answers count with the
    lengths that they have. The API key is that of the environment variable `api_key_env`. Prompts differ between runs
    by `nonce` (random where it is None), so that no run finds another's in the prefix cache.

    Raises RunFailedError for a run that says nothing about the server's performance: it hung, answered nothing but
    errors, gave other lengths than asked, or the load was not sent on time. Raises InputError for a URL that is none
    and for an API key that is not set.
    """
    selector = TimedSelector()
    run = _Run(
        read_at=lambda: selector.returned,
        model_name=model_name,
        endpoint=endpoint,
        server=server,
        key=read_key(api_key_env),
        urls=tuple(map(base_url, urls)),
        loaded=loaded,
        gpus=gpus,
        rules=rules,
        nonce=int.from_bytes(os.urandom(8)) if nonce is None else nonce,
    )
    with interrupts_held():
        gc.collect()
    gc.freeze()  # what the process has loaded is not searched again while tokens are timed
    try:
        return selector.run(run.run())
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back until the block ends: raised in a destructor, it would be lost.

    Masking the signal would not do, since any other thread may take it in place of this one.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed = False

    def note(_number: int, _frame: "FrameType | None") -> None:
        nonlocal pressed
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, None)


@dataclass(kw_only=True)
class _Run:
    """One run: the requests in flight, what came of the others, and when it is over."""

    read_at: Callable[[], float]
    model_name: str
    endpoint: Endpoint
    server: Server
    key: str | None
    urls: tuple[str, ...]
    loaded: LoadedWorkload
    gpus: int
    rules: Rules
    nonce: int

    in_flight: int = 0
    warm_up: int = 0
    failures_in_a_row: int = 0
    failures: list[Failure] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    histograms: Totals | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        arrivals, workload = self.loaded.arrivals, self.loaded.workload
        self.concurrency = arrivals.concurrency if isinstance(arrivals, ClosedLoop) else 0
        self.to_count = max(workload.requests, self.concurrency)
        self.window = Window(load=self.loaded.load, gpus=self.gpus)
        self.part_way = self.concurrency
        self.stopping = self._stopping()
        self.next_look = float(FEWEST_REQUESTS)
        self.requests = requests_of(self.loaded)
        self.turns = itertools.cycle(self.urls)
        self.numbers = itertools.count()

    async def run(self) -> LoadReport:
        self.over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.client = Client(
            self.model_name,
            endpoint=self.endpoint,
            server=self.server,
            key=self.key,
            on_token=self._progressed,
            read_at=self.read_at,
        )
        async with self.client:
            self.began = self.progress = time.perf_counter()
            try:
                self._start(self._watch())
                await self._prepare()
                self.began = self.progress = time.perf_counter()
                if self.concurrency:
                    self._fill()
                else:
                    self._start(self._send_when_due())
                ended = await self.over
                by_server = await self._by_server()
                return self._report(ended, by_server)
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _prepare(self) -> None:
        """A server may hang or die before the load has begun: requests that prepare it are watched, too."""
        preparing = asyncio.ensure_future(prepare(self.client, self.urls, self.loaded.workload, nonce=self.nonce))
        self.in_flight = len(self.urls)
        either: set[asyncio.Future[Any]] = {preparing, self.over}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        self.in_flight = 0
        if not preparing.done():
            preparing.cancel()
            await self.over
        self.prompts = await preparing

    def _stopping(self) -> Stopping:
        # A trace is as it was recorded, and its busiest part may be yet to come.
        steady = not isinstance(self.loaded.arrivals, Replay) and not self.loaded.workload.standing_start
        return Stopping(self.rules.limits, planned=self.to_count, steady=steady)

    # Sending

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.over.done():
            self.over.set_exception(error)

    def _fill(self) -> None:
        if self.loaded.workload.standing_start:
            self._open(self.began, self.concurrency)
        for _ in range(self.concurrency):
            self._start(self._keep_sending())

    async def _keep_sending(self) -> None:
        """One of a closed loop's users."""
        for turn, request in enumerate(self.requests):
            await self._send(request, self._body(request), part_way=turn == 0)

    async def _send_when_due(self) -> None:
        for request in self.requests:
            body = self._body(request)
            await asyncio.sleep(self.began + request.arrival - time.perf_counter())
            self._start(self._send(request, body))

    def _body(self, request: Request) -> Body:
        name = f"servetune-{self.nonce:x}-{next(self.numbers)}"
        return Body(
            name=name,
            prompt=self.prompts.prompt(request.input_tokens),
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
        )

    async def _send(self, request: Request, body: Body, *, part_way: bool = False) -> None:
        if not self.in_flight:
            self.progress = time.perf_counter()
        self.in_flight += 1
        outcome = await self.client.ask(next(self.turns), body)
        self.in_flight -= 1
        if not self.concurrency:
            self.delays.append(outcome.sent - self.began - request.arrival)
        self._take(request, outcome, part_way=part_way)

    # What came of it

    def _progressed(self, now: float) -> None:
        self.progress = now

    def _take(self, request: Request, outcome: Answer | Failure, *, part_way: bool) -> None:
        if self.over.done():
            return
        counts = self.window.is_open
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            self.window.failed += counts
            self._give_up_on_failures(outcome)
        else:
            self.failures_in_a_row = 0
            if counts:
                self.window.take(request, outcome)
                self._stop_early(outcome)
        if not counts:
            self._warm_up(outcome.ended, part_way=part_way)
        elif len(self.window.answers) + self.window.failed >= self.to_count:
            self._end("all answered")

    def _stop_early(self, answer: Answer) -> None:
        latencies: dict[Metric, float | None] = {"ttft": answer.ttft, "tpot": answer.tpot, "e2e": answer.e2e}
        decision = self.stopping.take(latencies, keeps_up=self._keeps_up())
        if decision is not None:
            self._end(decision)
        elif len(self.window.answers) >= self.next_look:
            self.next_look *= LOOK_GROWTH
            if self.rules.hopeless(self.window.optimistic(self._measurement())):
                self._end("hopeless")

    def _keeps_up(self) -> bool:
        """In open loop a queue that is growing shows late: no SLO is met before half of the requests are answered."""
        if self.concurrency:
            return True
        answered = len(self.window.answers)
        return 2 * answered >= self.to_count and self.window.backlog_growth(self.in_flight) <= 0.1 * answered

    def _give_up_on_failures(self, last: Failure) -> None:
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= MOST_FAILURES_IN_A_ROW and not self.over.done():
            detail = f"{self.failures_in_a_row} requests in a row failed, at last with: {last.detail}"
            self.over.set_exception(RunFailedError(last.cause, detail))

    def _warm_up(self, now: float, *, part_way: bool) -> None:
        """The window opens with the last completion of the warm-up."""
        self.warm_up += 1
        if self.concurrency:
            self.part_way -= part_way
            over = self.part_way <= 0
        else:
            settled = self.warm_up >= max(WARM_UP * self.in_flight, FEWEST_WARM_UPS)
            # Where requests come faster than they are served, the number in flight never settles.
            over = settled or self.warm_up >= max(2 * self.to_count, FEWEST_WARM_UPS)
            if settled:  # numbers in flight fluctuate by their square root: count enough that this is no backlog
                self.to_count = max(self.to_count, 4 * self.in_flight)
                self.stopping = self._stopping()
        if over:
            self._open(now, self.in_flight)

    def _open(self, now: float, in_flight: int) -> None:
        self.window.open(now, in_flight)
        self._start(self._look_at_histograms())

    def _end(self, ended: Ended) -> None:
        if not self.over.done():
            self.over.set_result(ended)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.rules.stall_limit_s / 4))
            self.rules.alive()
            now = time.perf_counter()
            if self.in_flight and now - self.progress > self.rules.stall_limit_s:
                detail = f"no token for {now - self.progress:.0f} s with {self.in_flight} requests in flight"
                raise RunFailedError(HANG, detail)
            if now - self.began > self.rules.time_limit_s:
                self._out_of_time()

    def _out_of_time(self) -> None:
        if len(self.window.answers) < min(FEWEST_REQUESTS, self.to_count):
            detail = (
                f"{len(self.window.answers)} of {self.to_count} requests answered in {self.rules.time_limit_s:.0f} s"
            )
            raise RunFailedError(OUT_OF_TIME, detail)
        self._end("time limit")

    # The server's own view

    async def _look_at_histograms(self) -> None:
        with contextlib.suppress(StreamError):  # a server without them is no failure
            self.histograms = await self._histograms()

    async def _histograms(self) -> Totals:
        pages = await asyncio.gather(*(self.client.get(url, METRICS_PATH) for url in self.urls))
        return Totals.of(page.decode(errors="replace") for status, page in pages if status == HTTP_OK)

    async def _by_server(self) -> Mapping[Metric, float]:
        if self.histograms is None:
            return {}
        try:
            async with asyncio.timeout(METRICS_LIMIT_S):
                return (await self._histograms()).means_since(self.histograms)
        except (StreamError, TimeoutError):
            return {}

    # The result

    def _report(self, ended: Ended, by_server: Mapping[Metric, float]) -> LoadReport:
        if not self.window.answers:
            causes = Counter(failure.cause for failure in self.failures)
            detail = f"no request was answered: {dict(causes)}, such as {self.failures[0].detail}"
            raise RunFailedError(causes.most_common(1)[0][0], detail)
        delays = Percentiles.of(self.delays) if self.delays else None
        self._check_delays()
        self.window.check_lengths(self.server, grain=self.prompts.grain)
        return LoadReport(
            measurement=self._measurement(),
            answers=tuple(self.window.answers),
            ended=ended,
            warm_up=self.warm_up,
            failures=dict(Counter(failure.cause for failure in self.failures)),
            send_delays=delays,
            by_server=by_server,
        )

    def _check_delays(self) -> None:
        late = sum(delay > ON_TIME_S for delay in self.delays)
        if late > (1 - ON_TIME_SHARE) * len(self.delays):
            detail = (
                f"{late} of {len(self.delays)} requests were sent over {ON_TIME_S * 1000:.0f} ms after they were due, "
                f"one by {max(self.delays) * 1000:.0f} ms: this machine is too busy to send this load"
            )
            raise RunFailedError(LATE, detail)

    def _measurement(self) -> Measurement:
        measured = self.window.measurement(failed_requests=len(self.failures), in_flight=self.in_flight)
        return replace(measured, not_had=self.window.not_had(self.server, exact=self.prompts.exact))

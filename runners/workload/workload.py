"""Workload: what the server is asked to do, as lengths, arrivals and a number of requests."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Token counts drawn uniformly from low..high, both included; fixed where they are equal."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"`1 <= low <= high` must hold for lengths, but got {self.low}..{self.high}")

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        return rng.integers(self.low, self.high + 1, size=count, dtype=np.int64)

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """So many requests in flight at any time: each completion starts the next request."""

    concurrency: int

    unit = "requests in flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """Independent arrivals at a mean rate, in requests/s."""

    rate: float

    unit = "requests/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The arrivals and lengths of a recorded trace, its clock run `speed` times as fast."""

    trace: "Trace"
    speed: float

    unit = "x the trace's pace"


Arrivals = ClosedLoop | Poisson | Replay
Shape = Literal["closed_loop", "poisson", "trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `arrival` is in seconds since the run began; it has no meaning in a closed loop."""

    arrival: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Recorded requests in order of arrival: seconds since the first, and token counts."""

    path: str
    arrival: Floats
    input_tokens: Ints
    output_tokens: Ints

    @property
    def rate(self) -> float:
        """Mean requests/s as recorded."""
        return len(self.arrival) / max(float(self.arrival[-1]), 1e-9)

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """A CSV with the columns TIMESTAMP (ISO time, or seconds), ContextTokens, GeneratedTokens.

        These are the columns of the Azure LLM inference traces. Raises InputError with the line that is broken.
        """
        try:
            with path.open(encoding="utf-8", newline="") as lines:
                rows = list(_trace_rows(path, csv.DictReader(lines)))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read as a trace: {error}") from None
        if len(rows) < 2:  # noqa: PLR2004 a rate needs two arrivals
            raise InputError(f"{path}: a trace needs at least 2 requests, but has {len(rows)}")
        start = rows[0][0]
        if rows[-1][0] <= start:
            raise InputError(f"{path}: the last request must come after the first, but all {len(rows)} come at once")
        return cls(
            path=str(path),
            arrival=np.array([row[0] - start for row in rows]),
            input_tokens=np.array([row[1] for row in rows], dtype=np.int64),
            output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        )


TRACE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOST_TOKENS = 100_000_000
"""More than any model takes: a larger count is a broken line."""


def _trace_rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[float, int, int]]:
    missing = [name for name in TRACE_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"{path}: line 1: a trace needs the columns {', '.join(TRACE_COLUMNS)}; missing: {', '.join(missing)}"
        )
    latest = -math.inf
    for row in reader:
        where, found = f"{path}: line {reader.line_num}", {name: row[name] for name in TRACE_COLUMNS}
        try:
            seconds = _seconds(row["TIMESTAMP"])
            input_tokens, output_tokens = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}, in {found}") from None
        if not all(1 <= tokens <= MOST_TOKENS for tokens in (input_tokens, output_tokens)):
            raise InputError(f"{where}: token counts must be >= 1 and <= {MOST_TOKENS}, but got {found}")
        if not math.isfinite(seconds):
            raise InputError(f"{where}: times must be finite, but got {found}")
        if seconds < latest:
            raise InputError(f"{where}: arrivals must not go back in time, but got {found}")
        latest = seconds
        yield seconds, input_tokens, output_tokens


def _seconds(text: str) -> float:
    """Raises ValueError for what is no time, an empty one included."""
    try:
        return float(text)
    except ValueError:
        # datetime keeps microseconds; the Azure traces write seven digits.
        time = np.datetime64(text.strip().replace(" ", "T"), "ns")
        if np.isnat(time):
            raise ValueError(f"not a time: {text!r}") from None
        return float(time.astype(np.int64)) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of the server, without how hard: `at(load)` adds that.

    `requests` is how many are measured, after a warm-up that is not. `shared_prefix_tokens` of each prompt are the
    same in all requests and found in the prefix cache. With a `standing_start` there is no warm-up: a closed loop's
    first requests are all sent at once to an idle server and count, as benchmark clients do it; the run ends when all
    `requests` are answered.
    """

    shape: Shape = "closed_loop"
    input_tokens: Lengths
    output_tokens: Lengths
    trace: Trace | None = None
    requests: int = 400
    standing_start: bool = False
    shared_prefix_tokens: int = 0
    seed: int = 0

    def at(self, load: float) -> "LoadedWorkload":
        """The workload at a load: requests in flight, requests/s or pace, by its shape."""
        if load <= 0:
            raise ValueError(f"`load > 0` must hold, but got {load}")
        arrivals: Arrivals
        if self.shape == "closed_loop":
            arrivals = ClosedLoop(concurrency=max(round(load), 1))
        elif self.shape == "poisson":
            arrivals = Poisson(rate=load)
        else:
            assert self.trace is not None
            arrivals = Replay(trace=self.trace, speed=load)
        return LoadedWorkload(workload=self, arrivals=arrivals, load=load)

    def with_requests(self, requests: int) -> "Workload":
        return replace(self, requests=requests)

    @property
    def mean_request_tokens(self) -> float:
        """Mean input plus output."""
        return self.mean_input_tokens + self.mean_output_tokens

    @property
    def mean_input_tokens(self) -> float:
        return float(self.trace.input_tokens.mean()) if self.trace else self.input_tokens.mean

    @property
    def mean_output_tokens(self) -> float:
        return float(self.trace.output_tokens.mean()) if self.trace else self.output_tokens.mean

    @property
    def max_request_tokens(self) -> int:
        """The longest request's input plus output."""
        if self.trace is not None:
            return int((self.trace.input_tokens + self.trace.output_tokens).max())
        return self.input_tokens.high + self.output_tokens.high

    @property
    def load_unit(self) -> str:
        return {"closed_loop": ClosedLoop.unit, "poisson": Poisson.unit, "trace": Replay.unit}[self.shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWorkload:
    """A workload at one load: what one measurement is taken of."""

    workload: Workload
    arrivals: Arrivals
    load: float

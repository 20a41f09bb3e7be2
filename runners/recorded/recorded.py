"""Recorded: published measurements replayed as runs."""

import datetime as dt
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from runners.measurement import Measurement, Percentiles
from runners.recorded.recording import Recording, served
from runners.runner import Measure, RunFailedError
from runners.workload.workload import ClosedLoop, LoadedWorkload, Workload
from search_spaces.config import ServingConfig
from search_spaces.errors import InputError

LENGTH_TOLERANCE = 0.01


def newest(rows: Iterable[Recording]) -> tuple[Recording, ...]:
    """Each configuration at each load once: its latest measurement, as one who measured now would see it."""
    latest: dict[tuple[object, ...], Recording] = {}
    for row in sorted(rows, key=lambda row: row.date or dt.date.min):
        latest[served(row.config), row.scenario, row.concurrency] = row
    return tuple(latest.values())


class Recorded:
    """Answers with what was published for a configuration, at the nearest recorded concurrency at or below.

    Percentiles are not in the rows: each of them is the mean. A run is charged what it took: the requests through
    the closed loop plus `startup_s` for loading and warming up the engine; `sleep` spends that time (by default none
    is spent), and `spent_s` sums it up, `gpu_seconds` times the GPUs held.
    """

    def __init__(
        self,
        rows: Iterable[Recording],
        *,
        startup_s: float = 0.0,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._rows: dict[ServingConfig, list[Recording]] = defaultdict(list)
        for row in newest(rows):
            self._rows[served(row.config)].append(row)
        for found in self._rows.values():
            found.sort(key=lambda row: row.concurrency)
        self.startup_s = startup_s
        self.spent_s = 0.0
        self.gpu_seconds = 0.0
        self._sleep = sleep

    @property
    def configs(self) -> tuple[ServingConfig, ...]:
        return tuple(self._rows)

    @contextmanager
    def serve(self, config: ServingConfig) -> Iterator[Measure]:
        """Raises RunFailedError for a configuration that was never measured."""
        found = self._rows.get(served(config))
        if not found:
            raise RunFailedError("not recorded", f"{config} was never measured; {len(self._rows)} configurations were")
        gpus = found[0].config.gpus
        self._charge(self.startup_s, gpus)

        def measure(loaded: LoadedWorkload) -> Measurement:
            row = _nearest(found, loaded, config)
            self._charge(row.seconds, gpus)
            return as_measurement(row)

        yield measure

    def _charge(self, seconds: float, gpus: int) -> None:
        self.spent_s += seconds
        self.gpu_seconds += seconds * gpus
        if self._sleep is not None:
            self._sleep(seconds)


def _nearest(found: Sequence[Recording], loaded: LoadedWorkload, config: ServingConfig) -> Recording:
    if not isinstance(loaded.arrivals, ClosedLoop):
        raise InputError("recordings know closed-loop arrivals only; valid: closed_loop")
    asked = loaded.workload
    rows = [row for row in found if same_lengths(row.workload, asked)]
    if not rows:
        known = sorted({(row.workload.input_tokens.high, row.workload.output_tokens.high) for row in found})
        raise RunFailedError(
            "not recorded",
            f"{config} was not measured with {asked.input_tokens} input and {asked.output_tokens} output tokens; "
            f"valid (longest): {', '.join(f'{inputs}/{outputs}' for inputs, outputs in known)}",
        )
    index = bisect_right([row.concurrency for row in rows], loaded.load)
    if not index:
        raise RunFailedError(
            "not recorded",
            f"{config} was measured from {rows[0].concurrency} requests in flight, not {loaded.load:g}",
        )
    return rows[index - 1]


def same_lengths(one: Workload, other: Workload) -> bool:
    """Whether both ask for the same token counts: the longest are equal, the shortest within 1 % of them."""
    pairs = (one.input_tokens, other.input_tokens), (one.output_tokens, other.output_tokens)
    return all(a.high == b.high and abs(a.low - b.low) <= LENGTH_TOLERANCE * a.high for a, b in pairs)


def as_measurement(row: Recording) -> Measurement:
    """A recording in the form of a run; every percentile is the mean."""
    requests = row.workload.requests
    return Measurement(
        load=row.concurrency,
        gpus=row.config.gpus,
        duration_s=row.seconds,
        requests=requests,
        input_tokens=round(requests * row.workload.input_tokens.mean),
        output_tokens=round(requests * row.workload.output_tokens.mean),
        ttft=Percentiles.of([row.ttft]),
        tpot=Percentiles.of([row.tpot]),
        itl=Percentiles.of([row.tpot]),
        e2e=Percentiles.of([row.ttft + row.tpot * (row.workload.output_tokens.mean - 1)]),
        source="recorded",
    )

"""Sla: what was promised, and by how much a measurement misses it."""

from dataclasses import dataclass

from runners.measurement import METRICS, PERCENTILES, Measurement, Metric
from runners.stopping import Limit
from search_spaces.errors import InputError, UnknownNameError

STATISTICS: tuple[str, ...] = ("mean", *(f"p{percentile:g}" for percentile in PERCENTILES))
PROMISES: tuple[str, ...] = tuple(f"{metric}_ms_{statistic}" for metric in METRICS for statistic in STATISTICS)
"""Every latency that can be promised, by its key in an experiment file."""

BACKLOG = "backlog"
"""The promise that is always made: requests are served as fast as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One statistic of one latency stays at or below `limit_s` seconds."""

    metric: Metric
    statistic: str
    limit_s: float

    @property
    def key(self) -> str:
        return f"{self.metric}_ms_{self.statistic}"

    def observed(self, measurement: Measurement) -> float:
        """Seconds."""
        distribution = measurement.latency(self.metric)
        if self.statistic == "mean":
            return distribution.mean
        return distribution.at(float(self.statistic.removeprefix("p")))

    def excess(self, measurement: Measurement) -> float:
        """Observed / limit - 1: at most 0 when kept, 0.1 when missed by 10 %."""
        return self.observed(measurement) / self.limit_s - 1

    @property
    def limit(self) -> Limit:
        """As a run under load watches it."""
        percentile = None if self.statistic == "mean" else float(self.statistic.removeprefix("p"))
        return Limit(metric=self.metric, percentile=percentile, limit_s=self.limit_s)

    def __str__(self) -> str:
        return f"{self.metric.upper()} {self.statistic} <= {self.limit_s * 1000:g} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """Promises that must all be kept."""

    promises: tuple[Promise, ...]

    def excess(self, measurement: Measurement) -> dict[str, float]:
        """Relative excess by promise, feasible when <= 0. `backlog` is 1 where the server did not keep up."""
        excess = {promise.key: promise.excess(measurement) for promise in self.promises}
        return excess | {BACKLOG: 0.0 if measurement.kept_up and not measurement.failed_requests else 1.0}

    def kept_by(self, measurement: Measurement) -> bool:
        return all(value <= 0 for value in self.excess(measurement).values())

    def __str__(self) -> str:
        return ", ".join(str(promise) for promise in self.promises)


def read_promise(key: str, milliseconds: float) -> Promise:
    """`("ttft_ms_p99", 1000)` as a promise. Raises UnknownNameError or InputError."""
    if key not in PROMISES:
        raise UnknownNameError("promise", key, PROMISES)
    if not 0 < milliseconds < float("inf"):
        raise InputError(f"`{key} > 0` must hold, but got {milliseconds:g}")
    metric, _, statistic = key.split("_")
    return Promise(metric=metric, statistic=statistic, limit_s=milliseconds / 1000)  # type: ignore[arg-type]

"""Measurement: what was observed when one configuration served one load. Nothing derived is stored."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

Metric = Literal["ttft", "tpot", "itl", "e2e"]
METRICS: tuple[Metric, ...] = get_args(Metric)

Source = Literal["simulated", "estimated", "recorded", "measured"]

PERCENTILES: tuple[float, ...] = (50, 75, 90, 95, 99, 99.9)
"""The percentiles that every measurement keeps."""


NO_METRICS = "the engine's own metrics (KV cache, queue, preemptions)"
"""What cannot be had of an engine without a page of metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """A latency distribution in seconds: its mean and its values at PERCENTILES, in that order."""

    mean: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, samples: ArrayLike, weights: ArrayLike | None = None) -> "Percentiles":
        """Of samples in seconds, each counted `weights` times.

        The value at percentile p is the smallest sample that at least p % of the weight does not exceed
        (inverted_cdf: the only rule of numpy's that takes weights; it never invents a value between two samples).
        Raises ValueError when there is no sample.
        """
        array = np.asarray(samples, dtype=np.float64)
        if array.size == 0:
            raise ValueError("a distribution needs at least one sample")
        counted = np.ones_like(array) if weights is None else np.asarray(weights, dtype=np.float64)
        values = np.percentile(array, list(PERCENTILES), weights=counted, method="inverted_cdf")
        return cls(mean=float(np.average(array, weights=counted)), values=tuple(float(value) for value in values))

    def at(self, percentile: float) -> float:
        """Raises ValueError for a percentile that is not kept."""
        return self.values[PERCENTILES.index(percentile)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a real engine and its GPUs said of themselves during a measurement; None or empty where they do not.

    `queue_time_s` is the mean wait for a seat of the requests that ended. `acceptance` is the share of drafts whose
    first, second, ... token was accepted. `watts` is the mean power of all GPUs held, chips only. `versions` names
    engine, driver, CUDA and GPU.
    """

    queue_time_s: float | None = None
    waiting_peak: int | None = None
    prefix_cache_hits: float | None = None
    acceptance: tuple[float, ...] = ()
    watts: float | None = None
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def tokens_per_step(self) -> float | None:
        """Mean tokens that a verified draft commits, its own token included."""
        return 1 + sum(self.acceptance) if self.acceptance else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run at one load.

    `duration_s` is the measured window, warm-up excluded; tokens and requests are those of requests that completed
    inside it. Latencies, in seconds, are of the same requests. TTFT: sent to first token. TPOT: (last token - first
    token) / (output tokens - 1), for each request. ITL: between two consecutive streamed chunks. E2E: sent to last
    token. `backlog_growth` is by how many the requests in the system grew over the window. `not_had` names what could
    not be measured of this server, or not as was asked.
    """

    load: float
    gpus: int
    duration_s: float
    requests: int
    failed_requests: int = 0
    input_tokens: int
    output_tokens: int
    ttft: Percentiles
    tpot: Percentiles
    itl: Percentiles
    e2e: Percentiles
    backlog_growth: int = 0
    preemptions: int = 0
    kv_cache_peak: float = 0.0
    source: Source
    observed: Observed | None = None
    not_had: tuple[str, ...] = ()

    def latency(self, metric: Metric) -> Percentiles:
        distribution: Percentiles = getattr(self, metric)
        return distribution

    @property
    def lacks(self) -> str:
        """`not_had` as a sentence; empty where nothing is missing."""
        return f"Not had of this server: {'; '.join(self.not_had)}." if self.not_had else ""

    @property
    def knows_cache(self) -> bool:
        """Whether `kv_cache_peak` and `preemptions` are known."""
        return NO_METRICS not in self.not_had

    @property
    def output_rate(self) -> float:
        """Output tokens/s."""
        return self.output_tokens / self.duration_s

    @property
    def total_rate(self) -> float:
        """Input and output tokens/s."""
        return (self.input_tokens + self.output_tokens) / self.duration_s

    @property
    def request_rate(self) -> float:
        """Completed requests/s."""
        return self.requests / self.duration_s

    @property
    def kept_up(self) -> bool:
        """False when requests came faster than they were served: the backlog grew by over 10 % of those served."""
        return self.backlog_growth <= 0.1 * self.requests

    @property
    def interactivity(self) -> float:
        """Tokens/s that one user sees: 1 / median TPOT; infinite where no token follows the first."""
        median = self.tpot.at(50)
        return 1 / median if median else math.inf

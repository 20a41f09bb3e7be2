"""Sla: what is asked of latencies, and by how much a measurement misses it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

from runners.load.stopping import Limit
from runners.measurement import METRICS, PERCENTILES, Measurement, Metric, Source
from runners.simulated.known_errors import SPREADS, Quantity, Spread
from runners.workload.workload import Workload
from search_spaces.errors import InputError, UnknownNameError

STATISTICS: tuple[str, ...] = ("mean", *(f"p{percentile:g}" for percentile in PERCENTILES))
SLOS: tuple[str, ...] = tuple(f"{metric}_ms_{statistic}" for metric in METRICS for statistic in STATISTICS)
"""Every latency that can have an SLO, by its key in an experiment file."""

BACKLOG = "backlog"
"""The SLO that is always made: requests are served as fast as they come."""

BISECTIONS = 40
"""Of an interval of logarithms narrower than 1: 1e-12 is left."""

NOISE: dict[Metric, tuple[float, float]] = {
    "ttft": (0.08, 0.12),
    "tpot": (0.006, 0.03),
    "itl": (0.006, 0.03),
    "e2e": (0.02, 0.05),
}
"""Coefficient of variation of repeated runs of one configuration: of the mean and median, and of the tail (p75 up).

Repeats of published runs: median TTFT 3 to 8 %, p99 TTFT 4 to 12 %, median TPOT 0.2 to 0.6 %; the upper ends stand
here. The tails of TPOT and ITL, and E2E, are assumed: no repeats of them were published.
"""

BETWEEN_TOKENS: tuple[Metric, ...] = ("tpot", "itl")
"""Latencies that answers of one token do not have. Of answers of several lengths, they are those of the longer."""

PREDICTED_AS: dict[Metric, Quantity] = {"ttft": "ttft", "tpot": "tpot", "itl": "tpot", "e2e": "tpot"}
"""Whose known error a predicted latency has: ITL and E2E are mostly decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
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
        """Observed / limit - 1: at most 0 when met, 0.1 when missed by 10 %."""
        return self.observed(measurement) / self.limit_s - 1

    def spread(self, source: Source) -> Spread:
        """Of log(what holds in the long run / what was observed).

        For a prediction its known error, for a measurement the noise of one run.
        """
        if source in SPREADS:
            return SPREADS[source][PREDICTED_AS[self.metric]]
        middle, tail = NOISE[self.metric]
        return Spread(median=0.0, sd=middle if self.statistic in ("mean", "p50") else tail)

    def watched(self, confidence: float | None) -> Limit:
        """What a run under load may observe at most: less than the limit by the noise of one run, with a confidence."""
        percentile = None if self.statistic == "mean" else float(self.statistic.removeprefix("p"))
        noise = 0.0 if confidence is None else NormalDist(sigma=self.spread("measured").sd).inv_cdf(confidence)
        return Limit(metric=self.metric, percentile=percentile, limit_s=self.limit_s / math.exp(noise))

    def __str__(self) -> str:
        return f"{self.metric.upper()} {self.statistic} <= {self.limit_s * 1000:g} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """SLOs that must all be met, all of them together with this probability where a `confidence` is asked for.

    What an SLO's latency is in the long run is as uncertain as its `spread` says. Logarithms are taken as normal and
    SLOs as independent, which is cautious: latencies that err together are within their limits together more often.
    """

    slos: tuple[Slo, ...]
    confidence: float | None = None

    def excess(self, level: Measurement, *repeats: Measurement) -> dict[str, float]:
        """Relative excess by SLO, and by BACKLOG (1 where the server did not keep up); met where all <= 0.

        `repeats` are further runs of the same: the geometric mean of all counts. See `excess_of`.
        """
        runs = (level, *repeats)
        found = self.excess_of(self._pooled(runs), level.source, runs=_independent(runs))
        return found | {BACKLOG: 0.0 if all(map(_answered, runs)) else 1.0}

    def excess_of(self, seconds: Sequence[float], source: Source, *, runs: int = 1) -> dict[str, float]:
        """Relative excess by SLO of what was observed, one latency for each, as the mean of so many independent runs.

        Without a `confidence`: observed / limit - 1. With one: of each SLO what its latency is below with that
        probability, / limit - 1; and then all raised alike, until the largest is f - 1, where f is the factor by which
        all latencies would have to shrink for P(SLA met) to reach the confidence.
        """
        if self.confidence is None or not self.slos:
            return {slo.key: one / slo.limit_s - 1 for slo, one in zip(self.slos, seconds, strict=True)}
        doubts = self._doubts(seconds, source, runs)
        alone = [doubt.inv_cdf(self.confidence) for doubt in doubts]
        raised = _quantile_of_largest(doubts, self.confidence) - max(alone)
        return {slo.key: math.expm1(one + raised) for slo, one in zip(self.slos, alone, strict=True)}

    def probability_met(self, level: Measurement, *repeats: Measurement) -> float:
        """That every SLO's latency lies below its limit in the long run, as all runs of the same say."""
        runs = (level, *repeats)
        if not all(map(_answered, runs)):
            return 0.0
        doubts = self._doubts(self._pooled(runs), level.source, _independent(runs))
        return probability_of_all(doubts)

    def nearest(self, level: Measurement) -> Slo:
        """The SLO with the largest excess."""
        excess = self.excess(level)
        return max(self.slos, key=lambda slo: excess[slo.key])

    def least_limit(self, slo: Slo, level: Measurement) -> float:
        """Seconds: the least limit of one SLO with which the SLA is met; infinite where others are missed."""
        others = replace(self, slos=tuple(other for other in self.slos if other != slo))
        if not others.met_by(level):
            return math.inf
        if self.confidence is None:
            return slo.observed(level)
        left = self.confidence / others.probability_met(level)
        if left >= 1:
            return math.inf
        spread = slo.spread(level.source)
        return slo.observed(level) * math.exp(NormalDist(spread.median, spread.sd).inv_cdf(left))

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What a run under load watches: each SLO alone. A run that misses one cannot meet the SLA."""
        return tuple(slo.watched(self.confidence) for slo in self.slos)

    def met_by(self, level: Measurement) -> bool:
        return all(value <= 0 for value in self.excess(level).values())

    def _pooled(self, runs: Sequence[Measurement]) -> list[float]:
        """Seconds, one for each SLO."""
        if len(runs) == 1:
            return [slo.observed(runs[0]) for slo in self.slos]
        return [math.exp(fmean(_log(slo.observed(level)) for level in runs)) for slo in self.slos]

    def _doubts(self, seconds: Sequence[float], source: Source, runs: int) -> list[NormalDist]:
        """The law of log(latency in the long run / limit), for each SLO."""
        doubts = []
        for slo, one in zip(self.slos, seconds, strict=True):
            spread = slo.spread(source)
            middle = _log(one) - math.log(slo.limit_s) + spread.median
            doubts.append(NormalDist(middle, spread.sd / math.sqrt(runs)))
        return doubts

    def __str__(self) -> str:
        slos = ", ".join(str(slo) for slo in self.slos)
        if self.confidence is None:
            return slos
        return f"{slos}, SLA met with a probability of at least {100 * self.confidence:g} %"


def probability_of_all(doubts: Sequence[NormalDist], at: float = 0.0) -> float:
    """That all of independent normal variables lie below: of log(latency / limit), that the SLA is met."""
    return math.prod(doubt.cdf(at) for doubt in doubts)


def _quantile_of_largest(doubts: Sequence[NormalDist], probability: float) -> float:
    """What the largest of independent normal variables is below with a probability.

    By bisection: the quantile of one alone is too small for all, and (Šidák) the one at the n-th root
    large enough.
    """
    low = max(doubt.inv_cdf(probability) for doubt in doubts)
    high = max(doubt.inv_cdf(probability ** (1 / len(doubts))) for doubt in doubts)
    if len(doubts) == 1:
        return low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if probability_of_all(doubts, middle) < probability:
            low = middle
        else:
            high = middle
    return high


def _independent(runs: Sequence[Measurement]) -> int:
    """How many observations they are: a prediction asked again says nothing new."""
    return 1 if runs[0].source in SPREADS else len(runs)


def _answered(level: Measurement) -> bool:
    """Whether every request was answered, as fast as they came."""
    return level.kept_up and not level.failed_requests


def _log(value: float) -> float:
    return math.log(max(value, 1e-12))


def check_observable(slo: Slo, workload: Workload) -> None:
    """Raises InputError for time between tokens where every answer has just one: nothing could miss it."""
    most = int(workload.trace.output_tokens.max()) if workload.trace else workload.output_tokens.high
    if slo.metric in BETWEEN_TOKENS and most < 2:  # noqa: PLR2004 the fewest that have time between them
        metric = slo.metric.upper()
        raise InputError(f"`output_tokens >= 2` must hold for {metric}, a time between tokens, but got {most}")


def read_slo(key: str, milliseconds: float) -> Slo:
    """`("ttft_ms_p99", 1000)` as an SLO. Raises UnknownNameError or InputError."""
    if key not in SLOS:
        raise UnknownNameError("SLO", key, SLOS)
    if not 0 < milliseconds < float("inf"):
        raise InputError(f"`{key} > 0` must hold, but got {milliseconds:g}")
    metric, _, statistic = key.split("_")
    return Slo(metric=metric, statistic=statistic, limit_s=milliseconds / 1000)  # type: ignore[arg-type]

"""Sla: what was promised, and by how much a measurement misses it."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from runners.load.stopping import Limit
from runners.measurement import METRICS, PERCENTILES, Measurement, Metric, Source
from runners.simulated.known_errors import SPREADS, Quantity, Spread
from search_spaces.errors import InputError, UnknownNameError

STATISTICS: tuple[str, ...] = ("mean", *(f"p{percentile:g}" for percentile in PERCENTILES))
SLOS: tuple[str, ...] = tuple(f"{metric}_ms_{statistic}" for metric in METRICS for statistic in STATISTICS)
"""Every latency that can be promised, by its key in an experiment file."""

BACKLOG = "backlog"
"""The SLO that is always made: requests are served as fast as they come."""


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
        """Observed / limit - 1: at most 0 when kept, 0.1 when missed by 10 %."""
        return self.observed(measurement) / self.limit_s - 1

    def spread(self, source: Source) -> Spread:
        """Of log(what holds in the long run / what was observed).

        For a prediction its known error, for a measurement the noise of one run.
        """
        if source in SPREADS:
            return SPREADS[source][PREDICTED_AS[self.metric]]
        middle, tail = NOISE[self.metric]
        return Spread(median=0.0, sd=middle if self.statistic in ("mean", "p50") else tail)

    @property
    def limit(self) -> Limit:
        """As a run under load watches it."""
        percentile = None if self.statistic == "mean" else float(self.statistic.removeprefix("p"))
        return Limit(metric=self.metric, percentile=percentile, limit_s=self.limit_s)

    def __str__(self) -> str:
        return f"{self.metric.upper()} {self.statistic} <= {self.limit_s * 1000:g} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """SLOs that must all be kept, each with this probability where a `confidence` is asked for."""

    slos: tuple[Slo, ...]
    confidence: float | None = None

    def excess(self, measurement: Measurement) -> dict[str, float]:
        """Relative excess by SLO, feasible when <= 0. `backlog` is 1 where the server did not keep up.

        With a `confidence`, each SLO must be that likely to be kept, as `margin` says.
        """
        excess = {
            slo.key: (1 + slo.excess(measurement)) * self.margin(slo, measurement.source) - 1 for slo in self.slos
        }
        return excess | {BACKLOG: 0.0 if measurement.kept_up and not measurement.failed_requests else 1.0}

    def margin(self, slo: Slo, source: Source) -> float:
        """The factor on what was observed below which the truth lies with the `confidence`; 1 where none is asked."""
        if self.confidence is None:
            return 1.0
        spread = slo.spread(source)
        return math.exp(spread.median + NormalDist().inv_cdf(self.confidence) * spread.sd)

    def met_by(self, measurement: Measurement) -> bool:
        return all(value <= 0 for value in self.excess(measurement).values())

    def __str__(self) -> str:
        slos = ", ".join(str(slo) for slo in self.slos)
        return slos if self.confidence is None else f"{slos}, each with a probability of {self.confidence:.0%}"


def read_slo(key: str, milliseconds: float) -> Slo:
    """`("ttft_ms_p99", 1000)` as an SLO. Raises UnknownNameError or InputError."""
    if key not in SLOS:
        raise UnknownNameError("SLO", key, SLOS)
    if not 0 < milliseconds < float("inf"):
        raise InputError(f"`{key} > 0` must hold, but got {milliseconds:g}")
    metric, _, statistic = key.split("_")
    return Slo(metric=metric, statistic=statistic, limit_s=milliseconds / 1000)  # type: ignore[arg-type]

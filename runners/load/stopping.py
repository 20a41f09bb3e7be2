"""When a run has shown enough: the percentile of an SLO has cleared its limit, or can no longer do so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from runners.measurement import Metric

FALSE_DECISIONS = 0.01
"""Share of runs that may stop on the wrong side of a limit, by the interval's rule, for each side."""

FIRST_LOOK = 50
LOOK_GROWTH = 1.25
"""The interval is looked at after 50 requests, then each time a quarter more have been answered."""

Decision = Literal["SLOs met", "SLO missed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A percentile (None: the mean) of one latency stays at or below `limit_s` seconds."""

    metric: Metric
    percentile: float | None
    limit_s: float

    def allowed(self, requests: int) -> int:
        """How many of so many requests may exceed the limit: the percentile is an observed value (inverted_cdf)."""
        assert self.percentile is not None
        return requests - math.ceil(round(self.percentile / 100 * requests, 9))


@dataclass(kw_only=True)
class _Tally:
    """One limit, and the latencies that it is about, in order."""

    limit: Limit
    seconds: list[float] = field(default_factory=list)
    exceeding: int = 0
    total: float = 0.0

    def take(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.exceeding += seconds > self.limit.limit_s
        self.total += seconds

    def cannot_keep(self, planned: int) -> bool:
        if self.limit.percentile is None:
            return self.total > self.limit.limit_s * planned
        return self.exceeding > self.limit.allowed(planned)

    def cannot_miss(self, answered: int, planned: int) -> bool:
        if self.limit.percentile is None or len(self.seconds) < answered:
            return False
        return self.exceeding + max(planned - answered, 0) <= self.limit.allowed(planned)

    def side(self, met_risk: float, missed_risk: float) -> Decision | None:
        if self.limit.percentile is None or len(self.seconds) < FIRST_LOOK:
            return None
        alike = dependence(self.seconds)
        count, exceeding = math.floor(len(self.seconds) / alike), self.exceeding / alike
        if count < FIRST_LOOK:
            return None
        share = 1 - self.limit.percentile / 100
        if at_most(math.ceil(exceeding), count, share) <= met_risk:
            return "SLOs met"
        if 1 - at_most(math.floor(exceeding) - 1, count, share) <= missed_risk:
            return "SLO missed"
        return None


class Stopping:
    """Decides, request by request, whether the run of `planned` requests may end.

    Two rules. *Curtailment*, for any load: stop when so many requests have exceeded a limit that the whole run must
    miss it, or when those left cannot make it miss any; no assumption, no false decision. *Interval*, for loads
    without a trend (`steady`): at each look, stop when the order-statistics interval of the percentile lies wholly on
    one side of its limit. That is: when the number of requests above the limit would be as small (or as large) with
    a probability below FALSE_DECISIONS / looks, were the percentile exactly at its limit (binomial law). Requests
    that are slow together count as fewer: their number is divided by their `dependence`, and FIRST_LOOK must be left.

    A mean is curtailed only; a limit on ITL is never decided before the end, as the chunks of a request are not
    independent. benchmarks/early_stops.py simulates the share of false decisions.
    """

    def __init__(self, limits: Sequence[Limit], *, planned: int, steady: bool) -> None:
        self.planned = planned
        self._steady = steady
        self._tallies = [_Tally(limit=limit) for limit in limits if limit.metric != "itl"]
        self._may_meet = bool(limits) and len(self._tallies) == len(limits)
        self._answered = 0
        self._next_look = float(FIRST_LOOK)
        looks = 1 + max(math.ceil(math.log(max(planned, 1) / FIRST_LOOK, LOOK_GROWTH)), 0)
        self._risk = FALSE_DECISIONS / looks

    def take(self, latencies: Mapping[Metric, float | None], *, keeps_up: bool = True) -> Decision | None:
        """One more request's latencies, None where it has none. No SLO is met while the server falls behind."""
        self._answered += 1
        for tally in self._tallies:
            seconds = latencies.get(tally.limit.metric)
            if seconds is not None:
                tally.take(seconds)
        may_meet = self._may_meet and keeps_up
        if any(tally.cannot_keep(self.planned) for tally in self._tallies):
            return "SLO missed"
        if may_meet and all(tally.cannot_miss(self._answered, self.planned) for tally in self._tallies):
            return "SLOs met"
        if self._steady and self._answered >= self._next_look:
            self._next_look *= LOOK_GROWTH
            return self._by_interval(may_meet=may_meet)
        return None

    def _by_interval(self, *, may_meet: bool) -> Decision | None:
        """Kept must hold for every limit, missed for any: its risk is shared among them."""
        sides = {tally.side(self._risk, self._risk / len(self._tallies)) for tally in self._tallies}
        if "SLO missed" in sides:
            return "SLO missed"
        return "SLOs met" if may_meet and sides == {"SLOs met"} else None


def dependence(seconds: Sequence[float]) -> float:
    """How many requests in a row tell as much as one: the integrated autocorrelation time of their ranks, at least 1.

    1 + 2 x the sum of the autocorrelations, cut where two neighbours no longer add up to more than 0 (Geyer's initial
    positive sequence, 1992); of ranks, so that it tells what the median's crossing would, however few are above the
    limit.
    """
    ranks = np.unique(np.asarray(seconds), return_inverse=True)[1].astype(float)
    ranks -= ranks.mean()
    if not ranks.any():
        return 1.0
    size = len(ranks)
    spectrum = np.fft.rfft(ranks, 2 * size)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:size]
    correlation = covariance / covariance[0]
    pairs = correlation[: size // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    return max(1.0, 2 * float(pairs[: ends[0] if ends.size else None].sum()) - 1)


def at_most(events: int, count: int, share: float) -> float:
    """P(X <= events) of a binomial variable."""
    if events < 0:
        return 0.0
    if events >= count:
        return 1.0
    log_share, log_rest, whole = math.log(share), math.log1p(-share), math.lgamma(count + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_share + (count - k) * log_rest)
        for k in range(events + 1)
    )
    return min(math.fsum(terms), 1.0)

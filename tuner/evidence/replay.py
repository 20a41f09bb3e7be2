"""Replay: the experiments that recorded rows can answer, and how good a decision is, held against the best measured."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from runners.recorded.recording import Recording, Recordings, closed_loop_rate
from runners.recorded.sample import recordings
from tuner.scenario.recorded import Case, case_of
from tuner.scenario.sla import Sla, Slo

BLACKWELL = ("b200", "b300", "gb200-nvl72", "gb300-nvl72")

TTFT_LIMITS = (0.3, 1.0, 3.0)
TPOT_LIMITS = (0.005, 0.01, 0.02, 0.04)
"""Seconds, of the mean: from a voice assistant's to a batch job's. Fixed before anything was scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Mean TTFT and TPOT in seconds; the rate of a closed loop follows from them as it does for a measurement."""

    ttft: float
    tpot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that mean TTFT and mean TPOT may be, in seconds. Rows hold means only: no SLO is on a percentile."""

    ttft: float
    tpot: float

    def met_by(self, point: Prediction | Recording, *, headroom: float = 0.0) -> bool:
        """Whether both stay below, and would if they were higher by the share `headroom`."""
        higher = 1 + headroom
        return point.ttft * higher <= self.ttft and point.tpot * higher <= self.tpot

    @property
    def sla(self) -> Sla:
        return Sla(
            slos=(
                Slo(metric="ttft", statistic="mean", limit_s=self.ttft),
                Slo(metric="tpot", statistic="mean", limit_s=self.tpot),
            )
        )

    def __str__(self) -> str:
        return f"TTFT {self.ttft * 1000:g} ms, TPOT {self.tpot * 1000:g} ms"


GRID = tuple(Limits(ttft=ttft, tpot=tpot) for ttft in TTFT_LIMITS for tpot in TPOT_LIMITS)


def cases(found: Recordings | None = None, *, systems: Sequence[str] = BLACKWELL) -> Sequence[Case]:
    """Every recorded scenario on these systems that has at least eight measured configurations, by name."""
    scenarios = (found or recordings()).scenarios()
    return [case_of(key, rows) for key, rows in scenarios.items() if key[1] in systems]


def limits_of(case: Case) -> tuple[Limits, ...]:
    """The limits of GRID that at least one of a case's rows meets."""
    return tuple(limits for limits in GRID if any(map(limits.met_by, case.rows)))


def rate_per_gpu(row: Recording, point: Prediction | Recording) -> float:
    """Output tokens/s/GPU of a row's closed loop with these latencies: its own, or predicted ones."""
    rate = closed_loop_rate(point.ttft, point.tpot, row.workload.output_tokens.mean)
    return row.concurrency * rate / row.config.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was picked among measured rows, None where nothing was predicted to meet the limits, and the best there is.

    `broken` where the pick was measured to miss the limits.
    """

    picked: Recording | None
    best: Recording
    limits: Limits

    @property
    def broken(self) -> bool:
        return self.picked is not None and not self.limits.met_by(self.picked)

    @property
    def excess(self) -> float:
        """By which share the pick was measured over the limit that it misses most; 0 where it breaks none."""
        if self.picked is None:
            return 0.0
        return max(self.picked.ttft / self.limits.ttft, self.picked.tpot / self.limits.tpot, 1.0) - 1

    @property
    def share(self) -> float:
        """Of the best measured tokens/s/GPU that meet the limits; 0 for a pick that breaks them, and for none."""
        if self.picked is None or self.broken:
            return 0.0
        return rate_per_gpu(self.picked, self.picked) / rate_per_gpu(self.best, self.best)


def best_row(rows: Iterable[Recording], limits: Limits) -> Recording | None:
    """The row with the most measured tokens/s/GPU of those that meet the limits."""
    return max(filter(limits.met_by, rows), key=lambda row: rate_per_gpu(row, row), default=None)


def decide(
    rows: Sequence[Recording],
    predictions: Sequence[Prediction | None],
    limits: Limits,
    *,
    meets: Callable[[Recording, Prediction, Limits], bool] = lambda _row, point, limits: limits.met_by(point),
) -> Decision | None:
    """Picks the row with the most predicted tokens/s/GPU of those that `meets` the limits as predicted.

    `predictions` are the rows', in their order; a row with None is one that the predictor abstains from: it is not
    picked, but may be the best. None where no row was measured to meet the limits: then there was nothing to find.
    """
    best = best_row(rows, limits)
    if best is None:
        return None
    known = [(row, point) for row, point in zip(rows, predictions, strict=True) if point is not None]
    hopeful = [(row, point) for row, point in known if meets(row, point, limits)]
    picked = max(hopeful, key=lambda pair: rate_per_gpu(*pair), default=None)
    return Decision(picked=picked[0] if picked else None, best=best, limits=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Decisions summed up: how many, and which share of them broke the limits, found nothing, or reached of the best.

    `share` counts a pick that breaks the limits, and none at all, as 0; `excess` is the median over broken ones.
    """

    decisions: int
    broken: float
    none: float
    share: float
    excess: float


def quality(decisions: Iterable[Decision]) -> Quality | None:
    """None where there are no decisions."""
    made = list(decisions)
    if not made:
        return None
    return Quality(
        decisions=len(made),
        broken=fmean(decision.broken for decision in made),
        none=fmean(decision.picked is None for decision in made),
        share=fmean(decision.share for decision in made),
        excess=median([decision.excess for decision in made if decision.broken] or [0.0]),
    )

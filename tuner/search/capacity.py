"""The highest load that meets the SLA, for one server that is up."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from runners.measurement import Measurement
from runners.runner import Measure
from runners.workload.workload import Workload
from tuner.scenario.sla import Sla

MOST_LEVELS = 7
PRECISION = 1.03
"""The search ends when the highest load that meets the SLA and the lowest that misses it are within this ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRange:
    """Where to look: loads that make sense, a first guess, and the unit that loads come in (0: any real number).

    In a closed loop a unit is one request for each scheduler, so that all get the same. Where only some loads can be
    had, as in a replay, `only` lists them in order.
    """

    lowest: float
    highest: float
    guess: float
    unit: float = 0.0
    only: tuple[float, ...] = ()

    def snap(self, load: float, *, met: float = 0.0, missed: float = math.inf) -> float:
        """The nearest load that can be had; of listed ones, between `met` and `missed` where there is one."""
        load = min(max(load, self.lowest), self.highest)
        if self.only:
            between = [listed for listed in self.only if met < listed < missed] or self.only
            return min(between, key=lambda listed: abs(math.log(listed / load)))
        if not self.unit:
            return load
        most = max(int(self.highest / self.unit), 1)
        return min(max(round(load / self.unit), 1), most) * self.unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The levels measured, in order, and which of them counts (see `Trial`).

    Not `exact` where the search ended before the highest load that meets the SLA was found.
    """

    levels: tuple[Measurement, ...]
    chosen: int
    exact: bool = True


def find_capacity(
    measure: Measure,
    workload: Workload,
    sla: Sla,
    loads: LoadRange,
    *,
    hopeless: Callable[[Measurement], bool] = lambda _level: False,
) -> Capacity:
    """Bisects the load, on a logarithmic scale, from a guess outwards: at most MOST_LEVELS runs.

    For one server, cost falls and latency rises with load, so the highest load that meets the SLA is the cheapest.
    `hopeless` says of a level that its cost is too high. As throughput grows at most in proportion to the load, a
    level that meets the SLA shows how much there is to be had below the lowest load that misses it: where even that
    is hopeless, the capacity is not made exact.
    """
    levels: list[Measurement] = []
    met, missed = 0.0, math.inf
    found = False
    load = loads.snap(loads.guess)
    stride = 1.25
    while len(levels) < MOST_LEVELS:
        level = measure(workload.at(load))
        levels.append(level)
        if sla.met_by(level):
            met = load
        else:
            missed = load
        if met and missed < math.inf and hopeless(_scaled(levels[_chosen(levels, sla)], missed / met)):
            break
        following = loads.snap(_next_load(met, missed, load, stride, loads.unit), met=met, missed=missed)
        stride *= stride
        if following in {level.load for level in levels} or missed <= met * PRECISION:
            found = True
            break
        load = following
    return Capacity(levels=tuple(levels), chosen=_chosen(levels, sla), exact=found)


def _next_load(met: float, missed: float, load: float, stride: float, unit: float) -> float:
    if met and missed < math.inf:
        return math.sqrt(met * missed)
    return max(load * stride, load + unit) if met else min(load / stride, load - unit)


def _scaled(level: Measurement, factor: float) -> Measurement:
    """The level, had it served that many times as fast."""
    return replace(level, duration_s=level.duration_s / factor)


def _chosen(levels: list[Measurement], sla: Sla) -> int:
    met = [index for index, level in enumerate(levels) if sla.met_by(level)]
    if met:
        return max(met, key=lambda index: levels[index].output_rate)
    return min(range(len(levels)), key=lambda index: max(sla.excess(levels[index]).values()))

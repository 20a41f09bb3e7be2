"""Confidence: how likely a measured configuration meets the SLA, what it costs within what bounds, and who ties."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from runners.simulated.known_errors import SPREADS, Spread
from search_spaces.config import ServingConfig, Value
from search_spaces.default import default_configs
from search_spaces.errors import InputError
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Trial

RATE_NOISE = 0.007
"""Coefficient of variation of the throughput of repeated runs: published ones have 0.2 to 0.7 %."""

INTERVAL = 0.9
"""How likely the cost lies within the interval that is shown."""

REACH = NormalDist().inv_cdf((1 + INTERVAL) / 2)

NOT_CHANGES = ("mode", "engine", "engine.version", "layout.replicas")
"""Settings that follow from others, or that there is no default of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One configuration at one load, all its repeats pooled.

    `trial` is the repeat nearest to their mean. `cost` is the geometric mean of the objective, `low` and `high` bound
    what it costs with the probability INTERVAL: by the noise of runs, or by a prediction's known error. `excess` is as
    in Sla: with a confidence of all repeats, else of `trial`. `noise` is the standard deviation of the logarithm of
    `cost` among equals: predictions repeat exactly. `changed` counts settings other than the engine's nearest default.
    """

    trial: Trial
    repeats: int
    cost: float
    low: float
    high: float
    probability_met: float
    excess: Mapping[str, float]
    noise: float
    changed: int

    @property
    def missed(self) -> float:
        """The largest excess; 0 where the SLA is met."""
        return max(0.0, *self.excess.values())

    @property
    def meets_sla(self) -> bool:
        return self.missed == 0

    def ties_with(self, other: "Judged") -> bool:
        """The costs differ by less than noise explains with the probability INTERVAL."""
        return abs(math.log(self.cost / other.cost)) <= REACH * math.hypot(self.noise, other.noise)


def judge(scenario: Scenario, trials: Sequence[Trial]) -> list[Judged]:
    """Every measured configuration, in the order in which they come to mind, its repeats pooled."""
    groups: dict[tuple[ServingConfig, float], list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.ending == "measured" and trial.config is not None:
            groups[trial.config, trial.measurement.load].append(trial)
    return [_judged(scenario, config, group) for (config, _), group in groups.items()]


def ranked(scenario: Scenario, trials: Sequence[Trial]) -> list[Judged]:
    """Judged configurations, best first.

    Those that meet the SLA (with the confidence asked for, else as measured) come first, by cost; one that ties with
    the cheapest stands before it where it changes fewer settings. The others follow by how little they miss.
    """
    order = sorted(judge(scenario, trials), key=lambda one: (one.missed, one.cost))
    tied = [one for one in order if one.meets_sla and one.ties_with(order[0])]
    if len(tied) > 1 and order[0].meets_sla:
        first = min(tied, key=lambda one: (one.changed, one.cost))
        order.remove(first)
        order.insert(0, first)
    return order


def settings_changed(scenario: Scenario, config: ServingConfig) -> int:
    """Settings other than those of the engine's default that has most of them in common."""
    try:
        sizes = default_configs(scenario.model, config.engine, scenario.gpus)
        defaults = [flatten(default) for size in sizes for default in size]
    except InputError:
        return 0
    return min((_different(flatten(config), default) for default in defaults), default=0)


def _different(some: Mapping[str, Value], others: Mapping[str, Value]) -> int:
    names = {*some, *others} - {*NOT_CHANGES}
    return sum(some.get(name) != others.get(name) for name in names)


def _judged(scenario: Scenario, config: ServingConfig, group: Sequence[Trial]) -> Judged:
    levels = [trial.measurement for trial in group]
    logs = [_log(scenario.usd_per_million(level)) for level in levels]
    middle = fmean(logs)
    noise = RATE_NOISE / math.sqrt(len(levels))
    off = Spread(median=0.0, sd=noise)
    if levels[0].source in SPREADS:
        noise, off = 0.0, SPREADS[levels[0].source]["throughput"]
    nearest = min(range(len(group)), key=lambda index: abs(logs[index] - middle))
    return Judged(
        trial=group[nearest],
        repeats=len(group),
        cost=math.exp(middle),
        low=math.exp(middle - off.median - REACH * off.sd),
        high=math.exp(middle - off.median + REACH * off.sd),
        probability_met=scenario.sla.probability_met(*levels),
        excess=scenario.sla.excess(*(levels if scenario.sla.confidence else levels[nearest : nearest + 1])),
        noise=noise,
        changed=settings_changed(scenario, config),
    )


def _log(value: float) -> float:
    return math.log(max(value, 1e-12))

"""Confidence: how likely a measured configuration meets the SLA, what it costs within what bounds, and who ties."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from runners.measurement import Measurement
from runners.simulated.known_errors import SPREADS, Spread
from search_spaces.config import ServingConfig, Value
from search_spaces.default import default_configs
from search_spaces.errors import InputError
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Slo
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
    what it costs with the probability INTERVAL: by the noise of runs, or by a prediction's known error. `kept` is P(SLA
    kept): that every SLO's long-run value lies below its limit. `noise` is the standard deviation of the logarithm
    of `cost` among equals: predictions repeat exactly. `changed` counts settings other than the engine's nearest
    default.
    """

    trial: Trial
    repeats: int
    cost: float
    low: float
    high: float
    kept: float
    noise: float
    changed: int

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

    def rank(judged: Judged) -> tuple[float, float]:
        return _missed(scenario, judged), judged.cost

    order = sorted(judge(scenario, trials), key=rank)
    tied = [one for one in order if _missed(scenario, one) == 0 and one.ties_with(order[0])]
    if len(tied) > 1 and _missed(scenario, order[0]) == 0:
        first = min(tied, key=lambda one: (one.changed, one.cost))
        order.remove(first)
        order.insert(0, first)
    return order


def probability_met(slos: Sequence[Slo], repeats: Sequence[Measurement]) -> float:
    """That each SLO's long-run value lies below its limit, as the mean of the repeats and their noise say.

    Logarithms are taken as normal and SLOs as independent.
    """
    chance = 1.0
    for slo in slos:
        if not all(level.kept_up for level in repeats):
            return 0.0
        spread = slo.spread(repeats[0].source)
        observed = fmean(_log(slo.observed(level)) for level in repeats)
        room = math.log(slo.limit_s) - observed - spread.median
        chance *= NormalDist().cdf(room / (spread.sd / math.sqrt(_independent(repeats))))
    return chance


def _independent(repeats: Sequence[Measurement]) -> int:
    """How many observations they are: a prediction asked again says nothing new."""
    return 1 if repeats[0].source in SPREADS else len(repeats)


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
        kept=probability_met(scenario.sla.slos, levels),
        noise=noise,
        changed=settings_changed(scenario, config),
    )


def _missed(scenario: Scenario, judged: Judged) -> float:
    """0 where the SLA is met; else by how much it is missed."""
    excess = max(0.0, *scenario.sla.excess(judged.trial.measurement).values())
    wanted = scenario.sla.confidence
    if wanted is None:
        return excess
    return 0.0 if judged.kept >= wanted - 1e-9 else max(excess, 1e-9)


def _log(value: float) -> float:
    return math.log(max(value, 1e-12))

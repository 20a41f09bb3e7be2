"""Shadow prices: what another millisecond of an SLO saves, from what was measured and from the closed form."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runners.measurement import Measurement
from runners.simulated.steady_state import SteadyPoint, SteadyState
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Slo
from tuner.study.finished_study import FinishedStudy

WORTHWHILE = 0.02
"""A looser SLO must save this share of the cost: smaller differences are noise between loads."""

RELAXED = 1.1
"""The closed form is asked for an SLO this many times as long."""

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""SLOs shown, in units of the one that was made."""

Served = tuple[ServingConfig, Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheaper:
    """A cheaper way that a looser SLO would allow: the limit in seconds, and the objective in dollars."""

    limit_s: float
    objective: float
    config: ServingConfig
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What loosening one SLO saves, the others as they are.

    `measured` and `closed_form` are dollars per million tokens saved by each extra millisecond; None where nothing
    measured is cheaper, where there is no closed form, and where the SLO is not met as it is.
    """

    slo: Slo
    observed_s: float
    cheaper: Cheaper | None
    measured: float | None
    closed_form: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """The cheapest load tried that meets an SLO of `factor` times the limit, the others as they are."""

    factor: float
    limit_s: float
    objective: float
    config: ServingConfig
    measurement: Measurement


def shadow_prices(finished: FinishedStudy) -> list[ShadowPrice]:
    """One for each SLO. Raises InputError where nothing was measured."""
    now = finished.scenario.usd_per_million(finished.winner.measurement)
    return [_shadow_price(finished, slo, now) for slo in finished.scenario.sla.slos]


def _shadow_price(finished: FinishedStudy, slo: Slo, now: float) -> ShadowPrice:
    scenario, is_met = finished.scenario, finished.meets_sla
    looser = [
        (scenario.sla.least_limit(slo, level), config, level)
        for config, level in served(finished)
        if is_met
        and slo.limit_s < scenario.sla.least_limit(slo, level) < math.inf
        and scenario.usd_per_million(level) <= now * (1 - WORTHWHILE)
    ]
    cheaper = None
    if looser:
        limit, config, level = min(looser, key=lambda item: item[0])
        objective = scenario.usd_per_million(level)
        cheaper = Cheaper(limit_s=limit, objective=objective, config=config, measurement=level)
    extra_ms = (cheaper.limit_s - slo.limit_s) * 1000 if cheaper else 0.0
    return ShadowPrice(
        slo=slo,
        observed_s=slo.observed(finished.winner.measurement),
        cheaper=cheaper,
        measured=(now - cheaper.objective) / extra_ms if cheaper else None,
        closed_form=_closed_form(finished, slo, now) if finished.meets_sla else None,
    )


def nearest_cheaper(finished: FinishedStudy) -> Cheaper | None:
    """The load tried that is cheaper than the winner and misses the SLA least, whatever SLOs it misses."""
    scenario = finished.scenario
    now = scenario.usd_per_million(finished.winner.measurement)
    candidates = [
        (max(scenario.sla.excess(level).values()), config, level)
        for config, level in served(finished)
        if scenario.usd_per_million(level) <= now * (1 - WORTHWHILE)
    ]
    if not candidates or not finished.meets_sla:
        return None
    excess, config, level = min(candidates, key=lambda item: item[0])
    return Cheaper(limit_s=excess, objective=scenario.usd_per_million(level), config=config, measurement=level)


def menu(finished: FinishedStudy, slo: Slo) -> Iterator[Nearby]:
    """What tighter and looser limits of one SLO would cost, by the loads that were tried."""
    scenario = finished.scenario
    for factor in FACTORS:
        limit = slo.limit_s * factor
        keeping = [
            (scenario.usd_per_million(level), config, level)
            for config, level in served(finished)
            if scenario.sla.least_limit(slo, level) <= limit
        ]
        if keeping:
            objective, config, level = min(keeping, key=lambda item: item[0])
            yield Nearby(factor=factor, limit_s=limit, objective=objective, config=config, measurement=level)


def served(finished: FinishedStudy) -> list[Served]:
    """Every load tried that the server kept up with, of trials, frontier and default."""
    trials = [*finished.trials, *([finished.baseline] if finished.baseline else [])]
    tried: list[Served] = [(trial.config, level) for trial in trials if trial.config for level in trial.levels]
    frontier: Sequence[Served] = finished.answer.frontier
    return [(config, level) for config, level in (*tried, *frontier) if level.kept_up and not level.failed_requests]


# The closed form


def _closed_form(finished: FinishedStudy, slo: Slo, now: float) -> float | None:
    """Dollars per million tokens and millisecond, where the winner's own configuration takes the load it then may.

    The closed form knows means only, and is off in its level. So it is asked how much its cost falls when the
    latencies may grow by as much as the SLOs leave headroom for, this one's being RELAXED times as long.
    """
    if not finished.predicted:
        return None
    config, scenario = finished.winning_config, finished.scenario
    try:
        steady = SteadyState(silicon=finished.session.silicon, config=config, workload=scenario.workload)
        sequences = _sequences_now(finished.winner.measurement, config)
        before = steady.at(max(sequences, 1))
    except InfeasibleError:
        return None
    excess = scenario.sla.excess(finished.winner.measurement)
    headroom = {other.key: max(1 / (1 + excess[other.key]), 1.0) for other in scenario.sla.slos}
    tight = _most(steady, before, scenario.sla.slos, headroom)
    loose = _most(steady, before, scenario.sla.slos, headroom | {slo.key: headroom[slo.key] * RELAXED})
    saved = 1 - _dollars(scenario, config, loose) / _dollars(scenario, config, tight)
    return max(saved * now, 0.0) / (slo.limit_s * (RELAXED - 1) * 1000)


def _sequences_now(level: Measurement, config: ServingConfig) -> int:
    decoding = max(level.e2e.mean - level.ttft.mean, 0.0)
    return round(level.request_rate * decoding / config.layout.schedulers)


def _most(steady: SteadyState, before: SteadyPoint, slos: Sequence[Slo], headroom: dict[str, float]) -> SteadyPoint:
    """The highest load at which no latency is more than its headroom times what it is before."""

    def fits(point: SteadyPoint) -> bool:
        grown = {"ttft": point.ttft / before.ttft, "tpot": point.tpot / max(before.tpot, 1e-12)}
        grown |= {"itl": grown["tpot"], "e2e": point.e2e / before.e2e}
        return all(grown[slo.metric] <= headroom[slo.key] for slo in slos)

    low, high = before.sequences, max(steady.most_sequences, before.sequences)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(steady.at(middle)):
            low = middle
        else:
            high = middle - 1
    return steady.at(low)


def _dollars(scenario: Scenario, config: ServingConfig, point: SteadyPoint) -> float:
    return scenario.usd_per_million_at(point.request_rate, held=config.gpus)

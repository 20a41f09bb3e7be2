"""Reprice: finished studies scored again for another price or SLA, from the loads that were measured."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from runners.measurement import Measurement
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.hardware.system import PRICE_LISTS, Price, list_price
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import SLOS, Sla, Slo, check_observable, read_slo
from tuner.search.capacity import PRECISION
from tuner.search.trial import Trial
from tuner.study.finished_study import FinishedStudy

PER_GPU_HOUR = "a number of dollars per GPU-hour"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is to be asked instead; None and absent SLOs stay as they were, a limit of None drops an SLO."""

    price_list: str | None = None
    date: dt.date | None = None
    slos: Mapping[str, float | None]

    @property
    def changes_price(self) -> bool:
        return self.price_list is not None or self.date is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """A measured trial under other terms.

    `level` is the cheapest measured load that meets the SLA, None where none does. `least` bounds its cost from
    below: what it could be at the highest load that may meet it, given that throughput grows at most in proportion to
    the load; 0 where nothing bounds it. `gap` says what was not measured, and is empty where the capacity is known
    to the resolution of its search.
    """

    trial: Trial
    level: Measurement | None
    cost: float
    least: float
    gap: str

    @property
    def exact(self) -> bool:
        return not self.gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """A study under other terms: every measured trial, those that meet the SLA first, cheapest first."""

    finished: FinishedStudy
    scenario: Scenario
    rescored: tuple[Rescored, ...]

    @property
    def best(self) -> Rescored | None:
        """The cheapest trial that is known to meet the SLA."""
        return next((one for one in self.rescored if one.level is not None), None)

    @property
    def rivals(self) -> tuple[Rescored, ...]:
        """Those that may be cheaper than the best, for all that was measured; the lowest bound first."""
        bound = self.best.cost if self.best else math.inf
        found = [one for one in self.rescored if one is not self.best and one.least < bound]
        return tuple(sorted(found, key=lambda one: one.least))

    @property
    def suffices(self) -> bool:
        """Whether what was measured says which of the trials is cheapest, and what it costs."""
        return self.best is not None and self.best.exact and not self.rivals


def reprice(finished: FinishedStudy, terms: Terms) -> Repriced:
    """Raises InputError for a price or SLO that cannot be."""
    scenario = rescored_scenario(finished.scenario, terms)
    trials = [rescore(scenario, trial) for trial in finished.trials if trial.ending == "measured"]
    trials.sort(key=lambda one: (one.level is None, one.cost, one.least))
    return Repriced(finished=finished, scenario=scenario, rescored=tuple(trials))


def rescored_scenario(scenario: Scenario, terms: Terms) -> Scenario:
    sla = _sla(scenario.sla, terms.slos)
    for slo in sla.slos:
        check_observable(slo, scenario.workload)
    return replace(scenario, price=_price(scenario, terms), sla=sla)


def rescore(scenario: Scenario, trial: Trial) -> Rescored:
    """One measured trial under a scenario's price and SLA."""
    levels = sorted(trial.levels, key=lambda level: level.load)
    met = [level for level in levels if scenario.sla.met_by(level)]
    if not met:
        lowest = levels[0]
        bound = scenario.usd_per_million(lowest)
        # At lower loads throughput falls, so nothing is cheaper there than the lowest load that was measured.
        gap = f"it misses the SLA at the lowest load that was measured, {lowest.load:,.6g}; lower ones may meet it"
        return Rescored(trial=trial, level=None, cost=math.inf, least=bound, gap=gap)
    best = min(met, key=scenario.usd_per_million)
    highest = met[-1].load
    missed = next((level.load for level in levels if level.load > highest), math.inf)
    figure = scenario.usd_per_million(best)
    unchanged = best == trial.measurement and trial.exact
    if missed <= highest * PRECISION or (unchanged and missed < math.inf):
        return Rescored(trial=trial, level=best, cost=figure, least=figure, gap="")
    if missed == math.inf and unchanged and trial.config and _is_full(scenario, trial, highest):
        return Rescored(trial=trial, level=best, cost=figure, least=figure, gap="")
    if missed == math.inf:
        gap = f"it meets the SLA at every load that was measured, up to {highest:,.6g}; higher ones were not tried"
        return Rescored(trial=trial, level=best, cost=figure, least=0.0, gap=gap)
    gap = f"its capacity lies between the loads {highest:,.6g} and {missed:,.6g}"
    return Rescored(trial=trial, level=best, cost=figure, least=figure * highest / missed, gap=gap)


def _is_full(scenario: Scenario, trial: Trial, load: float) -> bool:
    """Whether every seat of a closed loop was taken: there is no higher load."""
    assert trial.config is not None
    seats = trial.config.batching.max_sequences * trial.config.layout.schedulers
    return scenario.workload.shape == "closed_loop" and load >= seats


def _price(scenario: Scenario, terms: Terms) -> Price:
    if not terms.changes_price:
        return scenario.price
    own = _number(terms.price_list)
    if own is not None:
        if terms.date is not None:
            raise InputError("--date goes with a price list, not with a price of one's own")
        return replace(scenario.price, usd_per_gpu_hour=own, source="given on the command line")
    name = terms.price_list or _list_of(scenario.price)
    if name not in PRICE_LISTS:
        raise UnknownNameError("price", name, (*PRICE_LISTS, PER_GPU_HOUR))
    found = list_price(scenario.system, name, terms.date)
    return replace(found, usd_per_kwh=scenario.price.usd_per_kwh)


def _list_of(price: Price) -> str:
    name = price.source.partition(" ")[0]
    if name not in PRICE_LISTS:
        raise InputError(
            "--date needs a price list, since the study has a price of its own; "
            f"valid: --price {', '.join(PRICE_LISTS)}"
        )
    return name


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not 0 < value < math.inf:
        raise InputError(f"`price > 0` must hold, but got {text}")
    return value


def _sla(sla: Sla, slos: Mapping[str, float | None]) -> Sla:
    left = {slo.key: slo for slo in sla.slos}
    for key, limit in slos.items():
        if limit is None:
            if key not in left:
                raise UnknownNameError("SLO of the study", key, left)
            del left[key]
        else:
            left[key] = read_slo(key, limit)
    if not left:
        raise InputError("no SLO is left; at least one is needed")
    return replace(sla, slos=tuple(left.values()))


def read_terms(price: str | None, date: str | None, slos: Sequence[str]) -> Terms:
    """From the command line. Raises InputError."""
    found: dict[str, float | None] = {}
    for text in slos:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--sla {text!r}: must read KEY=MILLISECONDS, such as ttft_ms_p99=1500, or KEY=none")
        if key not in SLOS:
            raise UnknownNameError("SLO", key, SLOS)
        found[key] = None if value == "none" else _milliseconds(key, value)
    try:
        on = dt.date.fromisoformat(date) if date else None
    except ValueError:
        raise InputError(f"--date {date!r}: must be a date such as 2026-07-31") from None
    return Terms(price_list=price, date=on, slos=found)


def _milliseconds(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"--sla {key}: must be a number of milliseconds, but got {text!r}") from None
    if not 0 < value < math.inf:
        raise InputError(f"`{key} > 0` must hold, but got {text}")
    return value


def percentile_is_mean(repriced: Repriced, slo: Slo) -> bool:
    """Whether an SLO's percentile is unknown: recordings hold means only."""
    best = repriced.best
    return best is not None and best.trial.measurement.source == "recorded" and slo.statistic != "mean"

"""The ranking of a new release: carried over where step times are equal, corrected by what the old one measured."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from statistics import fmean, median

from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import step_key
from runners.simulated.step_time import StepTimes
from search_spaces.config import Engine, ServingConfig, Value
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InfeasibleError
from search_spaces.space import Params
from tuner.retune.champion import Champion
from tuner.retune.sides import Sides, on_release
from tuner.scenario.scenario import Scenario
from tuner.search.ranking import MATCHED, Candidate, Prior, Ranking
from tuner.search.session import Session

SAMPLED = 6
"""Workers whose step times are compared between two releases."""

SLOW_TABLE_S = 0.25
"""Kernel tables that take longer for each worker are not read for a whole space where a sample is equal."""

TIMED = 4
"""Workers whose tables are read to learn how long that takes."""

PARTLY_RANKED = 40


def rank_release(champion: Champion, both: Sides, clock: Callable[[], float] = time.monotonic) -> Ranking:
    """The new release's ranking.

    Some releases' tables take a second for each worker. Where those of a sample of workers are equal to an older
    release's, that one's ranking is carried over; where they are not, only its best are priced on the new release.
    Measured is always the new release itself.
    """
    session = both.new
    older = _cheaper_release(both.after)
    prior = session.prior
    if (
        not isinstance(prior, Prior)
        or older is None
        or not _is_slow(prior.silicon, _probes(champion, both.after), clock)
    ):
        return session.rank()
    other = Session(experiment=on_release(session.experiment, older))
    assert isinstance(other.prior, Prior)
    known = other.prior.rank()
    sample = list(_workers(session.scenario, known))[:SAMPLED]
    if all(same_steps(prior.silicon, key_config, both.after, older) for key_config in sample):
        return known
    best = [_priced(prior, candidate.params) for candidate in known.candidates[:PARTLY_RANKED]]
    found = sorted((candidate for candidate in best if candidate is not None), key=lambda candidate: candidate.rank)
    return Ranking(candidates=(*found, *known.candidates[PARTLY_RANKED:]), excluded=known.excluded)


def informed(ranking: Ranking, champion: Champion, both: Sides) -> Ranking:
    """The ranking, each prediction corrected by how far off the old one of the same combination was.

    What turned out dearer than predicted on the old release is expected to do so again; a combination that was not
    measured there is as far off as the usual one that was.
    """
    prior = both.old.prior
    if not both.moved or not isinstance(prior, Prior):
        return ranking
    scenario = both.old.scenario
    ratios: dict[Combination, float] = {}
    for trial in (champion.trial, *champion.others):
        if trial.config is None or trial.config.engine != both.before:
            continue
        params = scenario.space.params(trial.config)
        known = _priced(prior, params)
        if known is not None and known.objective:
            key = _combination(params)
            ratio = scenario.usd_per_million(trial.measurement) / known.objective
            ratios[key] = min(ratios.get(key, math.inf), ratio)
    if not ratios:
        return ranking
    usual = median(ratios.values())

    def expected(candidate: Candidate) -> tuple[float, float]:
        ratio = ratios.get(_combination(candidate.params), usual)
        return candidate.excess, (candidate.objective or 0.0) * ratio

    return replace(ranking, candidates=tuple(sorted(ranking.candidates, key=expected)))


Combination = frozenset[tuple[str, Value]]


def _combination(params: Params) -> Combination:
    """Everything but the batch limits and the prefill workers, which the ranking chooses by itself."""
    return frozenset(item for item in params.items() if not item[0].startswith(MATCHED))


def _priced(prior: Prior, params: Params) -> Candidate | None:
    try:
        return prior.predict(params)
    except InfeasibleError:
        return None


def _cheaper_release(engine: Engine) -> Engine | None:
    versions = facts_of(engine).versions
    return next((replace(engine, version=version) for version in versions if version != engine.version), None)


def _probes(champion: Champion, engine: Engine) -> Iterator[ServingConfig]:
    """Workers of the champion's kind in several sizes."""
    layout = replace(champion.config.layout, replicas=1)
    for size in (1, 2, 4, 8):
        yield replace(champion.config, engine=engine, layout=replace(layout, tensor=size))


def _is_slow(silicon: Silicon, probes: Iterable[ServingConfig], clock: Callable[[], float]) -> bool:
    """Whether each worker's tables take long, the first aside, which reads them all; also those found to lack times."""
    taken: list[float] = []
    for config in itertools.islice(probes, TIMED):
        began = clock()
        with suppress(InfeasibleError):
            silicon.step_times(step_key(config, config.layout))
        taken.append(clock() - began)
    return fmean(taken[1:]) > SLOW_TABLE_S


def _workers(scenario: Scenario, ranking: Ranking) -> Iterator[ServingConfig]:
    """One configuration for each kind of worker, best first."""
    seen = set()
    for candidate in ranking.candidates:
        config = scenario.space.config(candidate.params)
        key = step_key(config, config.layout)
        if key not in seen:
            seen.add(key)
            yield config


def same_steps(silicon: Silicon, config: ServingConfig, one: Engine, other: Engine) -> bool:
    """Whether a worker's step times are equal on two releases."""
    times = []
    for engine in (one, other):
        try:
            times.append(silicon.step_times(step_key(replace(config, engine=engine), config.layout)))
        except InfeasibleError:
            times.append(None)  # type: ignore[arg-type]
    first, second = times
    return first is second is None or (first is not None and second is not None and _equal(first, second))


def _equal(one: StepTimes, other: StepTimes) -> bool:
    names = ("prefill_shared", "decode_shared", "prefill_attention", "decode_attention", "draft", "prefill_host")
    return all(getattr(one, name) == getattr(other, name) for name in names)

"""Samplers: how the search proposes the next configuration to an Optuna study."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from search_spaces.errors import InfeasibleError
from search_spaces.space import PREFILL, Params
from tuner.prior import BATCHING, Candidate, Prior, Ranking, Uninformed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

RECORD = "servetune"
"""User attribute of an Optuna trial that holds the whole Trial. An interrupted trial has none."""

NEIGHBOURHOOD_EVERY = 2
"""After the opening, every second proposal is a neighbour of the best trial so far, the others follow the ranking."""

OPENING = 8
"""Proposals that follow the ranking before neighbours are tried."""


class RankedSampler(BaseSampler):
    """Follows the prior's ranking and searches around the best trial; never proposes the same twice.

    Its state is the study itself, so an interrupted search goes on where it stopped.
    """

    def __init__(self, prior: Prior | Uninformed, ranking: Ranking, *, seed: int) -> None:
        self._prior = prior
        self._ranking = ranking
        self._fallback = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> dict[str, BaseDistribution]:
        dimensions = self._prior.scenario.space.dimensions
        return {name: CategoricalDistribution(values) for name, values in dimensions.items()}

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposal = self.propose(study.get_trials(deepcopy=False))
        return dict(proposal) if proposal else {}

    def sample_independent(
        self,
        study: "Study",
        trial: "FrozenTrial",
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, trials: Sequence["FrozenTrial"]) -> Params | None:
        """The most promising untried parameters, or None when all were tried."""
        tried = {_key(trial.params) for trial in trials if RECORD in trial.user_attrs}
        turn = len(tried)
        around_best = turn >= OPENING and turn % NEIGHBOURHOOD_EVERY == 0
        first, second = self._ranked(), self._neighbours(trials)
        if around_best:
            first, second = second, first
        proposals = itertools.chain(first, second, self._others(tried))
        return next((params for params in proposals if _key(params) not in tried), None)

    def expected_saving(self, trials: Sequence["FrozenTrial"]) -> float:
        """Dollars per million tokens by which the next proposal is predicted to undercut the best trial."""
        best, params = best_of(trials), self.propose(trials)
        candidate = self._predicted(params) if params is not None else None
        if candidate is None or (candidate.excess and best is not None):
            return 0.0
        if best is None or best.value is None or missed_by(best) or candidate.objective is None:
            return math.inf
        return max(best.value - candidate.objective, 0.0)

    def _ranked(self) -> Iterator[Params]:
        return (candidate.params for candidate in self._ranking.candidates)

    def _neighbours(self, trials: Sequence["FrozenTrial"]) -> Iterator[Params]:
        """One step from the best trial in one dimension, the best predicted first."""
        best = best_of(trials)
        if best is None:
            return
        candidates = [self._predicted(params) for params in self._one_step(best.params)]
        legal = [candidate for candidate in candidates if candidate is not None]
        yield from (candidate.params for candidate in sorted(legal, key=lambda candidate: candidate.rank))

    def _one_step(self, params: Mapping[str, Any]) -> Iterator[Params]:
        for name, values in self._prior.scenario.space.dimensions.items():
            if name in params:
                at = values.index(params[name])
                for value in _beside(values, at):
                    yield self._prior.scenario.space.drawn({**params, name: value})

    def _others(self, tried: set[frozenset[tuple[str, Any]]]) -> Iterator[Params]:
        """Every other legal choice of batch limits and prefill workers, those of the best combinations first."""
        dimensions = self._prior.scenario.space.dimensions
        for candidate in self._ranking.candidates:
            names = [name for name in candidate.params if name.startswith((BATCHING, PREFILL))]
            for values in itertools.product(*(dimensions[name] for name in names)):
                params = candidate.params | dict(zip(names, values, strict=True))
                if _key(params) not in tried and self._predicted(params) is not None:
                    yield params

    def _predicted(self, params: Params) -> Candidate | None:
        try:
            return self._prior.predict(params)
        except (InfeasibleError, KeyError):  # KeyError: the step to disaggregated leaves the prefill pool open
            return None


def best_of(trials: Iterable["FrozenTrial"]) -> "FrozenTrial | None":
    """The cheapest trial that keeps every constraint or, if none does, the one that misses them least."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: (missed_by(trial), trial.value), default=None)


def missed_by(trial: "FrozenTrial") -> float:
    """The largest excess over a promise; 0 when all are kept."""
    return max([0.0, *trial.constraints.values()])


def _beside(values: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    """The neighbours of a number in its ordered list; every other choice of a name."""
    if isinstance(values[at], int):
        return values[max(at - 1, 0) : at] + values[at + 1 : at + 2]
    return values[:at] + values[at + 1 :]


def _key(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(params.items())

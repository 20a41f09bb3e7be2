"""Lawful: any sampler of Optuna's on a search space, its proposals moved to what can be served and was not tried."""

import itertools
import random
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from search_spaces.enumerated import EnumeratedSpace
from search_spaces.errors import InfeasibleError
from search_spaces.space import Params
from tuner.search.ranking import Prior, Uninformed
from tuner.search.stored import Key, finished_by_params, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study
    from optuna.trial import FrozenTrial, TrialState

TRIES = 40
"""Random changes that are looked at in each number of dimensions before one more dimension is changed."""


class Lawful(BaseSampler):
    """Has another sampler propose all parameters of a trial, and repairs what it proposes before Optuna stores it.

    Each number moves to the nearest value that its dimension has. A proposal that the prior says is infeasible (most of
    a product of dimensions is) or that was tried already is changed in as few dimensions as make it legal and new, at
    random: the repair operator of evolutionary computation (Michalewicz and Schoenauer, 1996). Of a space that is a
    list, the listed configuration with the most values in common stands in. Where all were tried, one of them is
    proposed again; where nothing is legal, the proposal stays.

    The sampler learns from what was served. Repairs depend on the trial's number alone.
    """

    def __init__(self, inner: BaseSampler, prior: Prior | Uninformed) -> None:
        self._inner = inner
        self._prior = prior
        self._space = prior.scenario.space

    def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> dict[str, BaseDistribution]:
        return self._space.distributions()

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = self._space.nearest(self._proposed(study, trial, search_space))
        rng = random.Random(trial.number)  # noqa: S311 no secret
        return dict(self._repaired(proposed, finished_by_params(study), rng))

    def sample_independent(
        self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: "Study", trial: "FrozenTrial") -> None:
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: "Study", trial: "FrozenTrial", state: "TrialState", values: "Sequence[float] | None"
    ) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()

    def _proposed(
        self, study: "Study", trial: "FrozenTrial", distributions: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A value for each dimension that is drawn, from the sampler's relative and independent ways together."""
        inner = self._inner
        relative = inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))
        found: dict[str, Any] = {}
        for name, distribution in distributions.items():
            choices = self._space.choices(name, found)
            if len(choices) == 1:
                found[name] = choices[0]
            elif choices and name in relative:
                found[name] = relative[name]
            elif choices:
                found[name] = inner.sample_independent(study, trial, name, distribution)
        return found

    def _repaired(self, proposed: Params, tried: Container[Key], rng: random.Random) -> Params:
        again: Params | None = None
        for params in itertools.chain([proposed], self._others(proposed, rng)):
            if key_of(params) in tried:
                again = again or params
            elif self._is_legal(params):
                return params
        return again or proposed

    def _is_legal(self, params: Params) -> bool:
        try:
            self._prior.predict(params)
        except InfeasibleError:
            return False
        return True

    def _others(self, params: Params, rng: random.Random) -> Iterator[Params]:
        """Others than the proposal, the more alike the sooner."""
        if isinstance(self._space, EnumeratedSpace):
            listed = [dict(key) for key in self._space.configs]
            rng.shuffle(listed)
            yield from sorted(listed, key=lambda other: -len(params.items() & other.items()))
            return
        for count in range(1, len(params) + 1):
            for _ in range(TRIES):
                changed = rng.sample(sorted(params), count)
                yield self._space.at_random(rng, {name: params[name] for name in params if name not in changed})

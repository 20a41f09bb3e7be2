"""Samplers: how the search proposes the next configuration to an Optuna study."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from search_spaces.errors import InfeasibleError
from search_spaces.space import PREFILL, Params
from tuner.prior import BATCHING, Candidate, Prior, Ranking

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

RECORD = "servetune"
"""User attribute of an Optuna trial that holds the whole Trial. An interrupted trial has none."""

TABLE = 3000
"""Most options that a search without predictions weighs at once: all of a small space, else so many at random."""

AROUND = 3
"""Best trials whose neighbours are weighed as well."""

INEXACT = 0.05
"""Standard deviation added to the cost of a trial whose capacity was not made exact."""


class BeliefSampler(BaseSampler):
    """Proposes what promises most to be cheaper and to keep the SLA, after each measurement anew.

    Believes in the ranking's predictions, where there are some, as far as the measurements bear them out (see
    `Belief`); looks at one-step neighbours of the best trials too, and never proposes the same twice. Its state is
    the study itself, so an interrupted search goes on where it stopped. Raises InputError for a ranking of another
    question.
    """

    def __init__(self, prior: "Predicts", ranking: Ranking, *, seed: int) -> None:
        self._prior = prior
        self._ranking = ranking
        self._seed = seed
        self._fallback = RandomSampler(seed=seed)
        self._promises = (*(promise.key for promise in prior.scenario.sla.promises), BACKLOG)
        for candidate in ranking.candidates:
            _check(candidate.params, prior.scenario.space)
        self._forget()

    def _forget(self) -> None:
        options = [self._option(candidate) for candidate in self._ranking.candidates] or self._drawn_at_random()
        self._belief = Belief(options, self._promises)
        self._places = {_key(option.params): index for index, option in enumerate(options)}
        self._observed: list[int] = []
        self._proposed: tuple[frozenset[Any], Params | None] | None = None

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
        ended = [trial for trial in trials if RECORD in trial.user_attrs]
        tried = frozenset(_key(trial.params) for trial in ended)
        if self._proposed is None or self._proposed[0] != tried:
            self._learn(ended)
            self._proposed = tried, self._most_promising(ended, tried)
        return self._proposed[1]

    # What the trials teach

    def _learn(self, ended: Sequence["FrozenTrial"]) -> None:
        """Observes the trials that are new since the last time; from the first again where the study is another."""
        numbers = [trial.number for trial in ended]
        if numbers[: len(self._observed)] != self._observed:
            self._forget()
        for trial in ended[len(self._observed) :]:
            self._add([trial.params])
            index = self._places.get(_key(trial.params))
            if trial.state == TrialState.COMPLETE and index is not None:
                self._belief.observe(index, self._measured(trial, self._belief.options[index]))
            self._observed.append(trial.number)
            for best in _leaders(ended[: len(self._observed)]):
                self._add(self._one_step(best.params))

    def _measured(self, trial: "FrozenTrial", option: Option) -> dict[str, float]:
        """Logs of the cost and of latency / limit by promise.

        A trial looks for the load that keeps the SLA. Where it found one, latencies lie just below their limits and
        the cost tells; a promise that was said to be kept then stays as it was said. Where it found none, the excess
        tells, and the cost is that of a load that does not count.
        """
        excess = trial.constraints
        missed = {name: excess[name] for name in self._promises if excess.get(name, 0.0) > 0}
        found = {name: math.log1p(value) for name, value in missed.items()}
        for name in self._promises:
            found.setdefault(name, min(option.ratios.get(name, 0.0), -KEPT_SLACK))
        if not missed and trial.value:
            found[COST] = math.log(trial.value)
        return found

    # What there is to choose from

    def _most_promising(self, ended: Sequence["FrozenTrial"], tried: frozenset[Any]) -> Params | None:
        best = best_of(ended)
        known = math.log(best.value) if best is not None and best.value and not missed_by(best) else None
        open_ = [index for key, index in self._places.items() if key not in tried]
        if open_:
            worth = self._belief.worth(known)[open_]
            if worth.max() > 0:
                return self._belief.options[open_[int(worth.argmax())]].params
            outlook = self._belief.outlook()
            return self._belief.options[min(open_, key=lambda index: outlook.cost[index])].params
        return next(self._others(tried), None)

    def _add(self, choices: Iterable[Params]) -> None:
        new = {_key(params): params for params in choices if _key(params) not in self._places}
        options = [option for params in new.values() if (option := self._predicted(params)) is not None]
        if options:
            first = len(self._belief.options)
            self._belief.extend(options)
            self._places |= {_key(option.params): first + index for index, option in enumerate(options)}

    def _one_step(self, params: Mapping[str, Any]) -> Iterator[Params]:
        """One step away in one dimension."""
        for name, values in self._prior.scenario.space.dimensions.items():
            if name in params:
                at = values.index(params[name])
                for value in _beside(values, at):
                    yield self._prior.scenario.space.drawn({**params, name: value})

    def _others(self, tried: frozenset[Any]) -> Iterator[Params]:
        """Every other legal choice of batch limits and prefill workers, those of the best combinations first."""
        dimensions = self._prior.scenario.space.dimensions
        for candidate in self._ranking.candidates:
            names = [name for name in candidate.params if name.startswith((BATCHING, PREFILL))]
            for values in itertools.product(*(dimensions[name] for name in names)):
                params = candidate.params | dict(zip(names, values, strict=True))
                if _key(params) not in tried and self._predicted(params) is not None:
                    yield params

    def _drawn_at_random(self) -> list[Option]:
        """Legal parameters of the space, TABLE of them or fewer, in an order that the seed decides."""
        dimensions = self._prior.scenario.space.dimensions
        chance = random.Random(self._seed)  # noqa: S311 no secret
        found: dict[frozenset[Any], Option] = {}
        for params in _draws(dimensions, chance, most=20 * TABLE):
            params = self._prior.scenario.space.drawn(params)
            if _key(params) not in found and (option := self._predicted(params)) is not None:
                found[_key(params)] = option
            if len(found) == TABLE:
                break
        return list(found.values())

    def _predicted(self, params: Params) -> Option | None:
        """Parameters with what is predicted of them, None where they make no deployment."""
        try:
            if hasattr(self._prior, "predict"):
                return self._option(self._prior.predict(params))
            config = self._prior.scenario.space.config(params)
            self._prior.check(config)
        except (InfeasibleError, KeyError):  # KeyError: the step to disaggregated leaves the prefill pool open
            return None
        return Option(params=params, place=place_of(config, config.batching.max_sequences * config.layout.schedulers))

    def _option(self, candidate: Candidate) -> Option:
        """A candidate with its place, at the load that its batch limits hold."""
        config = self._prior.scenario.space.config(candidate.params)
        ratios = dict.fromkeys(self._promises, -KEPT_SLACK)
        if candidate.binding:
            ratios[candidate.binding] = math.log1p(candidate.excess)
        return Option(
            params=candidate.params,
            place=place_of(config, config.batching.max_sequences * config.layout.schedulers),
            cost=math.log(candidate.objective) if candidate.objective > 0 else 0.0,
            ratios=ratios,
        )


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

"""The sampler of the surrogate: proposes the next configuration to an Optuna study."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from search_spaces.errors import InfeasibleError, InputError
from search_spaces.space import Params, SearchSpace
from tuner.scenario.sla import BACKLOG
from tuner.search.ranking import MATCHED, Candidate, Prior, Ranking, Uninformed
from tuner.search.stored import Key, key_of
from tuner.search.surrogate.acquisition import expected_gain
from tuner.search.surrogate.features import features_of
from tuner.search.surrogate.quantities import COST
from tuner.search.surrogate.surrogate import MET_SLACK, Option, Surrogate
from tuner.search.trial import RECORD

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

LEADERS = 3
"""Best trials whose one-step neighbours become options."""

CLIMB = 10
"""Most steps from the option of the largest acquisition to a neighbour with a larger one, at each proposal."""


class SurrogateSampler(BaseSampler):
    """Proposes the option of the largest acquisition, learned anew after each measurement (see `Surrogate`).

    Options are what the ranking has, one-step neighbours of the best trials and of what acquisition is largest for, and
    what was enqueued; none is proposed twice. Its state is the study itself, so an interrupted search goes on where it
    stopped. Raises InputError for a ranking of another experiment.
    """

    def __init__(self, prior: Prior | Uninformed, ranking: Ranking, *, seed: int) -> None:
        self._prior = prior
        self._ranking = ranking
        self._slos = (*(slo.key for slo in prior.scenario.sla.slos), BACKLOG)
        self._fallback = RandomSampler(seed=seed)
        for candidate in ranking.candidates:
            _check(candidate.params, prior.scenario.space)
        self._forget()

    def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> dict[str, BaseDistribution]:
        return self._prior.scenario.space.distributions()

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
        """The parameters of the next option, or None when all were tried."""
        self._learn(trials)
        return self._proposal

    def exhausted(self, trials: Sequence["FrozenTrial"]) -> bool:
        """Whether every legal configuration that is known was tried."""
        return self.propose(trials) is None

    def expected_saving(self, trials: Sequence["FrozenTrial"]) -> float:
        """Dollars per million tokens by which the next proposal is expected to undercut the best trial.

        Infinite where nothing has met the SLA yet, and where nothing is predicted nor learned.
        """
        params = self.propose(trials)
        index = self._rows.get(key_of(params)) if params is not None else None
        if index is None:
            return 0.0
        best = self._best
        if best is None or not best.value or missed_by(best) or self._surrogate.ignorant:
            return math.inf
        outlook = self._surrogate.outlook()
        at = slice(index, index + 1)
        gain = expected_gain(-outlook.cost[at], outlook.sd[at], -math.log(best.value))[0] * outlook.met[index]
        return float(best.value * gain / (1 + gain))

    # What the trials say

    def _forget(self) -> None:
        ranked = {key_of(candidate.params): candidate for candidate in reversed(self._ranking.candidates)}
        options = [self._option(candidate) for candidate in reversed(ranked.values())]
        self._surrogate = Surrogate(options, self._slos)
        self._rows: dict[Key, int] = {key_of(option.params): index for index, option in enumerate(options)}
        self._refused: set[Key] = set()
        self._expanded: set[int] = set()
        self._seen: list[FrozenTrial] = []
        self._tried: set[Key] = set()
        self._tried_rows: list[int] = []
        self._best: FrozenTrial | None = None
        self._proposal = self._best_proposal()

    def _learn(self, trials: Sequence["FrozenTrial"]) -> None:
        """Observes what ended since the last time, in order; all from the first where the study is another.

        Which options there are depends on those that were proposed before, so every turn is gone through.
        """
        ended = [trial for trial in trials if RECORD in trial.user_attrs]
        if [trial.number for trial in ended[: len(self._seen)]] != [trial.number for trial in self._seen]:
            self._forget()
        for trial in ended[len(self._seen) :]:
            self._seen.append(trial)
            key = key_of(trial.params)
            self._tried.add(key)
            self._tried_rows += [self._rows[key]] if key in self._rows else []
            self._observe(trial)
            self._best = best_of(self._seen)
            self._proposal = self._best_proposal()

    def _observe(self, trial: "FrozenTrial") -> None:
        if trial.state != TrialState.COMPLETE:
            return
        self._add([trial.params])
        index = self._rows.get(key_of(trial.params))
        if index is not None:
            self._surrogate.observe(index, self._measured(trial, self._surrogate.options[index]))
        for leader in _leaders(self._seen):
            self._add(self._prior.scenario.space.neighbours(leader.params))

    def _measured(self, trial: "FrozenTrial", option: Option) -> dict[str, float]:
        """Logs of the cost and of latency / limit by SLO.

        A trial looks for the load that meets the SLA. Where it found one, latencies lie just below their limits and
        the cost counts; an SLO that was predicted to be met then stays as predicted. Where it found none, the excess
        counts, and the cost is that of a load that does not.
        """
        excess = trial.constraints
        found = {name: math.log1p(excess[name]) for name in self._slos if excess.get(name, 0.0) > 0}
        if not found and trial.value:
            found[COST] = math.log(trial.value)
        for name in self._slos:
            found.setdefault(name, min(option.ratios.get(name, 0.0), -MET_SLACK))
        return found

    # What there is to choose from

    def _best_proposal(self) -> Params | None:
        untried = next((index for key, index in self._rows.items() if key not in self._tried), None)
        if untried is None:
            return next(self._others(), None)
        if self._surrogate.ignorant:
            return self._surrogate.options[untried].params
        index = self._argmax()
        for _ in range(CLIMB):
            if index in self._expanded:
                break
            self._expanded.add(index)
            self._add(self._prior.scenario.space.neighbours(self._surrogate.options[index].params))
            index = self._argmax()
        return self._surrogate.options[index].params

    def _argmax(self) -> int:
        """The untried option of the largest acquisition."""
        best = self._best
        lowest = math.log(best.value) if best is not None and best.value and not missed_by(best) else None
        acquisition = self._surrogate.acquisition(lowest)
        acquisition[self._tried_rows] = -1.0
        return int(acquisition.argmax())

    def _add(self, choices: Iterable[Mapping[str, Any]]) -> None:
        options: dict[Key, Option] = {}
        for params in choices:
            key = key_of(params)
            if key in self._rows or key in self._refused or key in options:
                continue
            candidate = self._predicted(dict(params))
            if candidate is None:
                self._refused.add(key)
            else:
                options[key] = self._option(candidate)
        rows = {key: row for row, key in enumerate(options, start=len(self._rows))}
        self._rows |= rows
        self._tried_rows += [row for key, row in rows.items() if key in self._tried]
        if options:
            self._surrogate.extend(list(options.values()))

    def _others(self) -> Iterator[Params]:
        """Every other legal choice of batch limits and prefill workers, those of the best combinations first."""
        dimensions = self._prior.scenario.space.dimensions
        for candidate in self._ranking.candidates:
            names = [name for name in candidate.params if name.startswith(MATCHED)]
            for values in itertools.product(*(dimensions[name] for name in names)):
                params = candidate.params | dict(zip(names, values, strict=True))
                if key_of(params) not in self._tried and self._predicted(params) is not None:
                    yield params

    def _predicted(self, params: Params) -> Candidate | None:
        try:
            return self._prior.predict(params)
        except (InfeasibleError, KeyError):  # KeyError: the step to disaggregated leaves the prefill pool open
            return None

    def _option(self, candidate: Candidate) -> Option:
        """A candidate at the load that its batch limits can hold."""
        config = self._prior.scenario.space.config(candidate.params)
        features = features_of(config, config.batching.max_sequences * config.layout.schedulers)
        if candidate.objective is None:
            return Option(params=candidate.params, features=features)
        ratios = dict.fromkeys(self._slos, -MET_SLACK)
        if candidate.binding:
            ratios[candidate.binding] = math.log1p(candidate.excess)
        return Option(params=candidate.params, features=features, cost=math.log(candidate.objective), ratios=ratios)


def best_of(trials: Iterable["FrozenTrial"]) -> "FrozenTrial | None":
    """The cheapest trial that meets every constraint or, if none does, the one that misses them least."""
    return next(iter(_leaders(trials)), None)


def _leaders(trials: Iterable["FrozenTrial"]) -> list["FrozenTrial"]:
    """The best few trials, the best first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (missed_by(trial), trial.value))[:LEADERS]


def missed_by(trial: "FrozenTrial") -> float:
    """The largest excess over an SLO; 0 when all are met."""
    return max([0.0, *trial.constraints.values()])


def _check(params: Params, space: SearchSpace) -> None:
    """Raises InputError where parameters are not of this space: their ranking answers another experiment."""
    for name, value in params.items():
        valid = space.dimensions.get(name, ())
        if value not in valid:
            choices = ", ".join(map(str, valid)) or "none: there is no such dimension"
            raise InputError(f"a prior of another experiment: it ranks {name}={value}; valid here: {choices}")

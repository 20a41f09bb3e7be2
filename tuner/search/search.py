"""Search: ask, serve, tell, until the budget is spent."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runners.measurement import Measurement
from runners.runner import OUT_OF_MEMORY, Metered, RunFailedError, Runner
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError
from search_spaces.fit import GIB, memory
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import find_capacity
from tuner.search.lawful import Lawful
from tuner.search.ranking import Prior, Uninformed
from tuner.search.stored import (
    Key,
    finish,
    finished_by_params,
    finished_trials,
    key_of,
    name_objective,
    repeat,
    settle_interrupted,
)
from tuner.search.tracker import Tracker
from tuner.search.trial import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


SAME_FAILURES = 3
"""So many environment failures of one cause in a row end a search."""

SAME_PROPOSALS = 10
"""So many proposals in a row of what was tried already end a search: its sampler has nothing new to say."""


@runtime_checkable
class Foresight(Protocol):
    """What a sampler may know beyond its next proposal, which then is always legal and new."""

    def exhausted(self, trials: "Sequence[FrozenTrial]") -> bool:
        """Whether nothing is left to propose after these trials."""

    def expected_saving(self, trials: "Sequence[FrozenTrial]") -> float:
        """Dollars per million tokens by which the next proposal is expected to undercut the best trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop: whichever comes first.

    `trials`, `gpu_seconds` and `usd` are those of the whole study, `wall_clock_s` those of this run. With
    `monthly_tokens` (those that the objective counts), a trial has to pay for itself within a month: the saving that
    it is expected to bring against the mean cost of the trials so far.
    """

    trials: int
    wall_clock_s: float = float("inf")
    gpu_seconds: float = float("inf")
    usd: float = float("inf")
    monthly_tokens: float | None = None


class Progress(Protocol):
    """Called with how many trials have finished, and the best so far."""

    def __call__(self, done: int, best: Trial | None) -> None: ...


@dataclass(slots=True, kw_only=True)
class Search:
    """One search of one scenario, by any sampler of Optuna's.

    One with Foresight ends the search when its space is exhausted, or when a trial is not expected to pay for itself.
    Any other is made `Lawful`, and ends it with the budget, or after SAME_PROPOSALS in a row of what was tried already.
    Such a proposal is not served again: for Optuna it ends as the finished trial did, with the same value and
    constraints, and it is no trial of ours (see `repeat`). What was enqueued is always served.

    `finished` is called with each new trial as it ends. `interrupted` says that Ctrl-C ended it, `tried` how many
    trials were new, `broken` which failure of the environment ended it.
    """

    prior: Prior | Uninformed
    runner: Runner
    study: "optuna.Study"
    sampler: "BaseSampler"
    tracker: Tracker
    budget: Budget
    progress: Progress
    clock: Callable[[], float] = time.monotonic
    finished: Callable[[Trial], None] = lambda _trial: None
    interrupted: bool = field(default=False, init=False)
    tried: int = field(default=0, init=False)
    broken: str = field(default="", init=False)
    _finished: list[Trial] = field(default_factory=list, init=False)
    _by_params: "dict[Key, FrozenTrial]" = field(default_factory=dict, init=False)
    _same: int = field(default=0, init=False)

    def run(self) -> None:
        """Tries configurations until the budget or the space is spent; goes on with a study that has some already.

        What the study has is logged again, which a tracker ignores where it has it already: a killed process may have
        written to the study but not to the tracker.
        """
        self._take_over()
        began = self.clock()
        self._show_progress()
        try:
            while self._affordable() and self.clock() - began < self.budget.wall_clock_s and self._trials_left():
                enqueued = self._enqueued()
                asked = self.study.ask()
                earlier = None if asked.number in enqueued else self._earlier(asked)
                if earlier is None:
                    self._take_turn(asked)
                else:
                    repeat(self.study, asked, earlier)
                    self._same += 1
        except KeyboardInterrupt:
            self.interrupted = True
            self._take_what_ended()

    def _take_over(self) -> None:
        """Makes the study one of this search."""
        self.study.sampler = self.sampler if isinstance(self.sampler, Foresight) else Lawful(self.sampler, self.prior)
        name_objective(self.study, self.scenario)
        settle_interrupted(self.study, self.scenario)
        self._finished = finished_trials(self.study)
        self._by_params = finished_by_params(self.study)
        for trial in self._finished:
            self.tracker.log(trial)

    def _take_what_ended(self) -> None:
        """Counts and logs a trial that the study has as ended although Ctrl-C came before its turn was over."""
        ended = finished_trials(self.study)
        for trial in ended[len(self._finished) :]:
            self.tried += 1
            self.tracker.log(trial)
        self._finished = ended

    def _earlier(self, asked: "optuna.Trial") -> "FrozenTrial | None":
        """The finished trial that has what is proposed; None for what is new."""
        with suppress(InfeasibleError):
            self.scenario.space.draw(asked)
        return self._by_params.get(key_of(asked.params))

    def _take_turn(self, asked: "optuna.Trial") -> None:
        trial = self.attempt(asked)
        self._by_params[key_of(asked.params)] = finish(self.study, asked, trial, self.scenario)
        self._finished.append(trial)
        self._same = 0
        self.tried += 1
        self.broken = broken_environment(self._finished[-self.tried :])
        self.tracker.log(trial)
        self.finished(trial)
        self._show_progress()

    def attempt(self, asked: "optuna.Trial") -> Trial:
        """One turn, to one of its three endings."""
        began, held = self.clock(), self._gpu_seconds()
        config: ServingConfig | None = None
        try:
            config = self.scenario.space.draw(asked)
            check_memory(self.scenario, config, self._finished)
            trial = measure_capacity(
                config,
                self.prior,
                self.runner,
                number=asked.number,
                to_beat=self._to_beat(),
                guess=self._usual_load(config),
            )
        except InfeasibleError as error:
            trial = _without_measurement(asked.number, "infeasible", config, error)
        except RunFailedError as error:
            failed = _without_measurement(asked.number, "failed", config, error)
            trial = replace(failed, environment=error.environment)
        return replace(trial, seconds=self.clock() - began, gpu_seconds=self._gpu_seconds() - held)

    def trials(self) -> list[Trial]:
        """Every finished trial, in order."""
        return list(self._finished)

    @property
    def scenario(self) -> Scenario:
        return self.prior.scenario

    def _to_beat(self) -> float:
        """The objective of the best trial that meets the SLA."""
        best = best_trial(self.scenario, self._finished)
        if best is None or not self.scenario.sla.met_by(best.measurement):
            return float("inf")
        return objective(self.scenario, best)

    def _usual_load(self, config: ServingConfig) -> float | None:
        """The best trial's load for so many GPUs, where nothing better is known."""
        best = best_trial(self.scenario, self._finished)
        if best is None or not isinstance(self.prior, Uninformed):
            return None
        return best.measurement.load / best.measurement.gpus * config.gpus

    def _gpu_seconds(self) -> float:
        return self.runner.gpu_seconds if isinstance(self.runner, Metered) else 0.0

    def _affordable(self) -> bool:
        """Whether the study's trials have cost less than they may, and another is expected to pay."""
        held = sum(trial.gpu_seconds for trial in self._finished)
        spent = held * self.scenario.price.usd_per_gpu_second
        budget = self.budget
        if held >= budget.gpu_seconds or spent >= budget.usd:
            return False
        if budget.monthly_tokens is None or not self._finished or not isinstance(self.sampler, Foresight):
            return True
        saving = self.sampler.expected_saving(self.study.get_trials(deepcopy=False))
        return saving * budget.monthly_tokens / 1e6 >= spent / len(self._finished)

    def _show_progress(self) -> None:
        self.progress(len(self._finished), best_trial(self.scenario, self._finished))

    def _trials_left(self) -> bool:
        if self.broken or len(self._finished) >= self.budget.trials:
            return False
        if self._enqueued():
            return True
        if isinstance(self.sampler, Foresight):
            return not self.sampler.exhausted(self.study.get_trials(deepcopy=False))
        return self._same < SAME_PROPOSALS

    def _enqueued(self) -> set[int]:
        """Numbers of the trials that wait for their turn."""
        return {trial.number for trial in self.study.get_trials(deepcopy=False) if trial.state.name == "WAITING"}


def measure_capacity(
    config: ServingConfig,
    prior: Prior | Uninformed,
    runner: Runner,
    *,
    number: int,
    to_beat: float = float("inf"),
    guess: float | None = None,
) -> Trial:
    """Serves one configuration at changing loads, to find the highest that meets the SLA.

    Does not look for the exact capacity once it is clear that the objective cannot fall below `to_beat`. Begins at the
    load that the prior predicts, or at `guess`.

    Raises InfeasibleError or RunFailedError.
    """
    scenario = prior.scenario

    def hopeless(level: Measurement) -> bool:
        return scenario.usd_per_million(level) > to_beat

    scenario.check(config)
    with runner.serve(config) as measure:
        loads = prior.load_range(config)
        loads = loads if guess is None else replace(loads, guess=guess)
        capacity = find_capacity(measure, scenario.workload, scenario.sla, loads, hopeless=hopeless)
    return Trial(
        number=number,
        ending="measured",
        config=config,
        levels=capacity.levels,
        chosen=capacity.chosen,
        exact=capacity.exact,
    )


def check_memory(scenario: Scenario, config: ServingConfig, trials: Sequence[Trial]) -> None:
    """Raises InfeasibleError for a configuration that needs as much as one of this engine that ran out of memory.

    Compared is what the memory model says of everything but the KV cache, on the GPU that holds most.
    """
    needed = _most_bytes(scenario, config)
    for trial in trials:
        if trial.config and trial.cause == OUT_OF_MEMORY and trial.config.engine == config.engine:
            bound = _most_bytes(scenario, trial.config)
            if needed >= bound:
                beside = f"needs {needed / GIB:.1f} GiB beside the KV cache"
                raise InfeasibleError("memory", f"{beside}; trial {trial.number} ran out with {bound / GIB:.1f}")


def _most_bytes(scenario: Scenario, config: ServingConfig) -> float:
    pool = config.disaggregation
    workers = [(config.layout, config.batching)]
    workers += [(pool.prefill_layout, pool.prefill_batching)] if pool else []
    return max(memory(scenario.model, scenario.system, config, *worker).other_than_kv for worker in workers)


def broken_environment(trials: Sequence[Trial]) -> str:
    """The cause that the last SAME_FAILURES trials have in common, where it lies in the environment; else nothing."""
    last = trials[-SAME_FAILURES:]
    if len(last) < SAME_FAILURES or not all(trial.environment for trial in last):
        return ""
    return f"{last[-1].cause}: {last[-1].detail}" if len({trial.cause for trial in last}) == 1 else ""


def objective(scenario: Scenario, trial: Trial) -> float:
    """Dollars per million tokens of a measured trial, as the scenario counts them."""
    return scenario.usd_per_million(trial.measurement)


def ranked_trials(scenario: Scenario, trials: Sequence[Trial]) -> list[Trial]:
    """Measured trials, best first: those that meet the SLA by cost, then the others by how little they miss it."""

    def rank(trial: Trial) -> tuple[float, float]:
        missed = max(scenario.sla.excess(trial.measurement).values())
        return max(missed, 0.0), objective(scenario, trial)

    return sorted((trial for trial in trials if trial.ending == "measured"), key=rank)


def best_trial(scenario: Scenario, trials: Sequence[Trial]) -> Trial | None:
    """The cheapest trial that meets the SLA or, if none does, the one that misses it least."""
    return next(iter(ranked_trials(scenario, trials)), None)


def _without_measurement(
    number: int, ending: str, config: ServingConfig | None, error: InfeasibleError | RunFailedError
) -> Trial:
    return Trial(number=number, ending=ending, config=config, cause=error.cause, detail=error.detail)  # type: ignore[arg-type]

"""Search: ask, serve, tell, until the budget is spent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from runners.measurement import Measurement
from runners.runner import OUT_OF_MEMORY, Metered, RunFailedError, Runner
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError
from search_spaces.fit import GIB, memory
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import find_capacity
from tuner.search.ranking import Prior, Uninformed
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Tracker
from tuner.search.trial import RECORD, Trial, trial_from_json, trial_to_json

if TYPE_CHECKING:
    import optuna


SAME_FAILURES = 3
"""So many environment failures of one cause in a row end a search."""


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
    """Told how many trials have finished, and the best so far."""

    def __call__(self, done: int, best: Trial | None) -> None: ...


@dataclass(slots=True, kw_only=True)
class Search:
    """One search of one scenario.

    `finished` is told each new trial as it ends. `interrupted` says that Ctrl-C ended it, `tried` how many trials were
    new, `broken` which failure of the environment ended it.
    """

    prior: Prior | Uninformed
    runner: Runner
    study: "optuna.Study"
    sampler: SurrogateSampler
    tracker: Tracker
    budget: Budget
    progress: Progress
    clock: Callable[[], float] = time.monotonic
    finished: Callable[[Trial], None] = lambda _trial: None
    interrupted: bool = field(default=False, init=False)
    tried: int = field(default=0, init=False)
    broken: str = field(default="", init=False)
    _finished: list[Trial] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Tries configurations until the budget or the space is spent; goes on with a study that has some already.

        What the study has is logged again, which a tracker ignores where it has it already: a killed process may have
        told the study but not the tracker.
        """
        self._settle_interrupted()
        self._finished = finished_trials(self.study)
        for trial in self._finished:
            self.tracker.log(trial)
        began = self.clock()
        self._tell_progress()
        try:
            while not self.broken and self._affordable() and self.clock() - began < self.budget.wall_clock_s:
                if not self._trials_left():
                    break
                asked = self.study.ask()
                trial = self.attempt(asked)
                self._finish(asked, trial)
                self.tried += 1
                self.broken = broken_environment(self._finished[-self.tried :])
                self.tracker.log(trial)
                self.finished(trial)
                self._tell_progress()
        except KeyboardInterrupt:
            self.interrupted = True

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
        """Whether the study's trials have cost less than they may, and another is worth it."""
        held = sum(trial.gpu_seconds for trial in self._finished)
        spent = held * self.scenario.price.usd_per_gpu_second
        budget = self.budget
        if held >= budget.gpu_seconds or spent >= budget.usd:
            return False
        if budget.monthly_tokens is None or not self._finished:
            return True
        saving = self.sampler.expected_saving(self.study.get_trials(deepcopy=False))
        return saving * budget.monthly_tokens / 1e6 >= spent / len(self._finished)

    def _tell_progress(self) -> None:
        self.progress(len(self._finished), best_trial(self.scenario, self._finished))

    def _trials_left(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        waiting = any(trial.state.name == "WAITING" for trial in trials)
        return len(self._finished) < self.budget.trials and (waiting or self.sampler.propose(trials) is not None)

    def _finish(self, asked: "optuna.Trial", trial: Trial) -> None:
        if trial.ending == "measured":
            for name, excess in self.scenario.sla.excess(trial.measurement).items():
                asked.set_constraint(name, excess)
        asked.set_user_attr(RECORD, trial_to_json(trial))
        self._tell(asked.number, trial)
        self._finished.append(trial)

    def _tell(self, number: int, trial: Trial) -> None:
        from optuna.trial import TrialState

        if trial.ending == "measured":
            self.study.tell(number, objective(self.scenario, trial))
        else:
            state = TrialState.PRUNED if trial.ending == "infeasible" else TrialState.FAIL
            self.study.tell(number, state=state)

    def _settle_interrupted(self) -> None:
        """Trials that an interrupted process left running: told if they had ended, else failed.

        The sampler takes no notice of a failed trial without a record and proposes the same again.
        """
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RECORD in trial.user_attrs:
                self._tell(trial.number, trial_from_json(trial.user_attrs[RECORD]))
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)


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


def finished_trials(study: "optuna.Study") -> list[Trial]:
    """The trials of a study that ended by themselves, in order."""
    records = (trial.user_attrs.get(RECORD) for trial in study.get_trials(deepcopy=False))
    return [trial_from_json(record) for record in records if record]


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

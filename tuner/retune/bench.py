"""Bench: configurations served in turn on both releases, every repeat kept."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from runners.measurement import Measurement
from runners.runner import RunFailedError
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError, InputError
from tuner.retune.champion import Champion
from tuner.retune.sides import Sides
from tuner.retune.verdict import (
    Arm,
    Comparison,
    Findings,
    Repeat,
    TooFewError,
    Window,
    best_side,
    compare,
    settled,
)
from tuner.scenario.experiment.budget import Retune
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import PRECISION
from tuner.search.ranking import Uninformed
from tuner.search.search import measure_capacity, objective, ranked_trials
from tuner.search.session import Session
from tuner.search.trial import Trial

MOST_WINDOWS = 6
"""Loads sent to one server until two in a row agree, the warm-up included."""


def missed_slos(scenario: Scenario, trial: Trial) -> str:
    """The SLOs that a trial misses, each by how much; empty where it meets the SLA."""
    missed = {key: value for key, value in scenario.sla.excess(trial.measurement).items() if value > 0}
    return ", ".join(f"{key} by {value:.1%}" for key, value in missed.items())


@dataclass(slots=True)
class Bench:
    """Where configurations are served in turn and every repeat is kept, in the order of time."""

    both: Sides
    champion: Champion
    plan: Retune
    on_step: Callable[[str], None]
    repeats: list[Repeat] = field(default_factory=list)

    def champion_today(self) -> Trial:
        """The champion at its capacity where it serves now. Raises InputError where it cannot be served."""
        self.on_step("Measuring the champion where it is in production")
        config = self.champion.config
        try:
            return _at_capacity(self.both.old, config, guess=self.champion.level.load)
        except (InfeasibleError, RunFailedError) as error:
            raise InputError(
                f"the champion of {self.champion.experiment} cannot be served on {config.engine} any more: {error}. "
                "Without it there is nothing to hold a release against: bring its engine back, or tune again and "
                f"promote: servetune champion promote {self.champion.experiment}"
            ) from None

    def champion_on_new(self) -> tuple[Trial | None, str]:
        """The champion at its capacity on the new release, or why there is no such thing there."""
        if not self.both.moved:
            return None, ""
        self.on_step("Measuring the champion on the new release")
        session = self.both.new
        config = replace(self.champion.config, engine=self.both.after)
        try:
            trial = _at_capacity(session, config, guess=self.champion.level.load)
        except (InfeasibleError, RunFailedError) as error:
            return None, str(error)
        broken = missed_slos(session.scenario, trial)
        return (None, f"it breaks {broken} at the lowest load that was tried") if broken else (trial, "")

    def held_against(self, first: Arm, one: Trial, second: Arm, other: Trial) -> tuple[Comparison | None, str]:
        """Two configurations in turn, A B B A with a sentinel around, until the repeats are done or equal."""
        loads = self._loads(one, other)
        sentinel = self._sentinel()
        taken: list[Repeat] = []
        for block in range(self.plan.repeats // 2):
            self.on_step(f"Serving {first} and {second} in turn, {2 * block} of {self.plan.repeats} repeats done")
            taken += self._sentinel_repeat(sentinel)
            for arm in (first, second, second, first):
                trial, load = (one, loads[0]) if arm == first else (other, loads[1])
                taken.append(self._repeat(arm, trial, load))
            if _noiseless(taken):
                break
        taken += self._sentinel_repeat(sentinel)
        self.repeats += taken
        try:
            found = compare(
                taken, first, second, minimum_effect=self.plan.minimum_effect, seed=self.both.new.experiment.seed
            )
        except TooFewError as error:
            return None, f"{first} against {second}: {error}"
        return found, ""

    def with_challenger(
        self, findings: Findings, trials: Sequence[Trial], before: Trial, after: Trial | None
    ) -> tuple[Findings, Trial | None]:
        """The best other trial, held against the champion on its better side where it may matter."""
        scenario = self.both.new.scenario
        reference = best_side(findings, self.plan.minimum_effect)
        held = after if reference == "new" and after else before
        own = {self.champion.config, replace(self.champion.config, engine=self.both.after)}
        others = [t for t in ranked_trials(scenario, trials) if t.config not in own]
        best = next((t for t in others if scenario.sla.met_by(t.measurement)), None)
        if best is None or not self._may_matter(findings, objective(scenario, best), objective(scenario, held)):
            return findings, None
        try:
            comparison, unsteady = self.held_against(reference, held, "challenger", best)
        except RunFailedError as error:
            return replace(findings, challenger_lost=str(error)), None
        return (
            replace(findings, challenger=comparison, reference=reference, challenger_lost=unsteady),
            best if comparison else None,
        )

    def _may_matter(self, findings: Findings, challenger: float, champion: float) -> bool:
        """Cheaper by half of what matters; where the champion got worse, no dearer than what matters."""
        minimum = self.plan.minimum_effect
        worse = bool(findings.lost or findings.broken)
        if findings.release is not None:
            worse = worse or bool(findings.release.missed) or findings.release.cost.reading(minimum) == "dearer"
        if findings.broken:
            return True
        return challenger < champion * ((1 + 2 * minimum) if worse else (1 - minimum / 2))

    def _loads(self, one: Trial, other: Trial) -> tuple[float, float]:
        """Each its capacity. Real capacities within the resolution of their search are taken for equal."""
        first, second = one.measurement.load, other.measurement.load
        same = one.config is not None and other.config is not None and one.config.layout == other.config.layout
        if self.both.new.is_real and same and abs(math.log(second / first)) <= math.log(PRECISION):
            first = second = min(first, second)
        return first, second

    def _sentinel(self) -> Trial | None:
        """A known configuration that no release of this session touches: the best other one of the champion's study."""
        engine = self.champion.config.engine
        return next((trial for trial in self.champion.others if trial.config and trial.config.engine == engine), None)

    def _sentinel_repeat(self, sentinel: Trial | None) -> Iterator[Repeat]:
        if sentinel is not None:
            yield self._repeat("sentinel", sentinel, self._sentinel_load(sentinel))

    def _sentinel_load(self, sentinel: Trial) -> float:
        if self.champion.asked.get("workload") == self.both.old.asked.get("workload"):
            return sentinel.measurement.load
        assert sentinel.config is not None
        loads = self.both.old.prior.load_range(sentinel.config)
        return loads.snap(loads.guess)

    def _repeat(self, arm: Arm, trial: Trial, load: float) -> Repeat:
        """One life of a server: the warm-up, then windows until two in a row agree."""
        session = self.both.old if arm in ("old", "sentinel") else self.both.new
        scenario = session.scenario
        windows: list[Window] = []
        assert trial.config is not None
        with session.runner.serve(trial.config) as measure:
            while len(windows) < MOST_WINDOWS and not settled(windows, self.plan.minimum_effect):
                windows.append(_window(scenario, measure(scenario.workload.at(load))))
        return Repeat(arm=arm, windows=tuple(windows))


def _window(scenario: Scenario, level: Measurement) -> Window:
    return Window(cost=scenario.usd_per_million(level), excess=scenario.sla.excess(level))


def _noiseless(repeats: Sequence[Repeat]) -> bool:
    """Whether every arm repeats itself to the last digit, as a simulator does and a machine never."""
    by_arm: dict[Arm, list[tuple[float, ...]]] = {}
    for repeat in repeats:
        by_arm.setdefault(repeat.arm, []).append(tuple(window.cost for window in repeat.windows))
    return all(len(set(found)) == 1 for found in by_arm.values())


def _at_capacity(session: Session, config: ServingConfig, *, guess: float) -> Trial:
    """Begins at the prior's prediction, and where there is none at the load in production.

    Raises InfeasibleError or RunFailedError.
    """
    uninformed = isinstance(session.prior, Uninformed)
    return measure_capacity(config, session.prior, session.runner, number=0, guess=guess if uninformed else None)

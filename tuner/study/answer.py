"""Answer: what a search found, as facts to print, log and act on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runners.measurement import Measurement
from search_spaces.config import ServingConfig
from tuner.evidence.confidence import Judged, ranked
from tuner.scenario.cost import Cost
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Slo
from tuner.search.ranking import Ranking
from tuner.search.search import objective
from tuner.search.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load of one trial: a point on the plane of cost and interactivity."""

    config: ServingConfig
    measurement: Measurement
    cost: Cost
    meets_sla: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The cheapest way found, what it was compared with, and why the others are no answer.

    `best` misses the SLA when every trial did. `baseline` is the engine's default configuration at the highest load
    at which it meets the SLA (or the one where it comes nearest), on the same GPUs. `frontier` holds loads beyond
    the SLA's reach, measured only to show the whole range from cheap to quick.
    """

    scenario: Scenario
    trials: Sequence[Trial]
    ranking: Ranking
    baseline: Trial | None
    frontier: Sequence[tuple[ServingConfig, Measurement]] = ()

    @cached_property
    def judged(self) -> list[Judged]:
        """Measured configurations, their repeats pooled, best first."""
        return ranked(self.scenario, self.trials)

    @property
    def ranked(self) -> list[Trial]:
        """Measured trials, best first, one for each configuration."""
        return [judged.trial for judged in self.judged]

    @property
    def ties(self) -> list[Judged]:
        """Others that meet the SLA and whose cost differs from the best's by no more than noise explains."""
        first, *others = self.judged
        meeting = (judged for judged in others if judged.meets_sla)
        return [judged for judged in meeting if judged.ties_with(first)] if first.noise else []

    @property
    def best(self) -> Trial | None:
        return next(iter(self.ranked), None)

    @property
    def meets_sla(self) -> bool:
        return bool(self.judged) and self.judged[0].meets_sla

    @property
    def saving(self) -> float | None:
        """1 - best / baseline in the objective; None unless both meet the SLA."""
        best, baseline = self.best, self.baseline
        if best is None or baseline is None or not self.meets_sla:
            return None
        if not self.scenario.sla.met_by(baseline.measurement):
            return None
        return 1 - objective(self.scenario, best) / objective(self.scenario, baseline)

    def cost(self, trial: Trial) -> Cost:
        return self.scenario.cost(trial.measurement)

    def missed(self, trial: Trial) -> dict[str, float]:
        """Relative excess of the SLOs that a measured trial does not keep, the worst first."""
        excess = self.scenario.sla.excess(trial.measurement)
        over = [(key, value) for key, value in excess.items() if value > 0]
        return dict(sorted(over, key=lambda item: -item[1]))

    def binding(self) -> Slo | None:
        """The SLO that the nearest trial misses most; None when the SLA is met, and where it only does not keep up."""
        if not self.judged or self.meets_sla:
            return None
        excess = self.judged[0].excess
        slo = max(self.scenario.sla.slos, key=lambda slo: excess[slo.key])
        return slo if excess[slo.key] > 0 else None

    def pareto(self) -> list[Point]:
        """Loads that no other beats in both cost and tokens/s for each user, cheapest first.

        Loads that a server did not keep up with are left out: they are no state to serve in.
        """
        tried = [(trial.config, level) for trial in self.trials for level in trial.levels if trial.config]
        points = [self._point(config, level) for config, level in (*tried, *self.frontier) if level.kept_up]
        points.sort(key=lambda point: (self._objective(point), -point.cost.tokens_per_s_per_user))
        front: list[Point] = []
        for point in points:
            if not front or point.cost.tokens_per_s_per_user > front[-1].cost.tokens_per_s_per_user:
                front.append(point)
        return front

    def _point(self, config: ServingConfig, level: Measurement) -> Point:
        return Point(
            config=config,
            measurement=level,
            cost=self.scenario.cost(level),
            meets_sla=self.scenario.sla.met_by(level),
        )

    def _objective(self, point: Point) -> float:
        return point.cost.objective(self.scenario.objective)

    def excluded(self) -> Mapping[str, int]:
        """Why combinations of the space are no answer, counted: illegal ones by cause, predicted ones by SLO."""
        counted: Counter[str] = Counter(self.ranking.excluded)
        for candidate in self.ranking.candidates:
            if candidate.binding:
                counted[f"over {candidate.binding} (predicted)"] += 1
        return dict(counted.most_common())

    def ended(self) -> Mapping[str, int]:
        """How trials ended, counted: met the SLA, over an SLO, infeasible or failed by cause."""
        counted: Counter[str] = Counter()
        for trial in self.trials:
            if trial.ending != "measured":
                counted[f"{trial.ending}: {trial.cause}"] += 1
            else:
                missed = self.missed(trial)
                counted[f"over {next(iter(missed))}" if missed else "met the SLA"] += 1
        return dict(counted.most_common())

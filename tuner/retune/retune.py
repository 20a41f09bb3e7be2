"""Retune: after a release, is the champion still the champion, and on which release."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.retune.bench import Bench, missed_slos
from tuner.retune.champion import Champion
from tuner.retune.change import Change
from tuner.retune.search_release import search_release
from tuner.retune.sides import Sides
from tuner.retune.verdict import (
    Findings,
    Repeat,
    Verdict,
    judge,
)
from tuner.scenario.experiment.budget import Retune
from tuner.scenario.scenario import Scenario
from tuner.search.search import objective
from tuner.search.tracker import Tracker
from tuner.search.trial import Trial

if TYPE_CHECKING:
    import optuna

HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """Everything that a retune found out.

    `before` and `after` are the champion at its capacity on both releases, `challenger` the best other trial of the
    new one where it was held against the champion. `trials` are those of the search there.
    """

    champion: Champion
    sides: Sides
    plan: Retune
    changes: tuple[Change, ...]
    settings: tuple[str, ...]
    before: Trial
    after: Trial | None
    challenger: Trial | None
    trials: tuple[Trial, ...]
    study: str
    findings: Findings
    verdict: Verdict
    repeats: tuple[Repeat, ...]
    seconds: float

    @property
    def scenario(self) -> Scenario:
        return self.sides.new.scenario

    @property
    def today(self) -> float:
        """$/M of the champion where it serves now, as measured in this session."""
        release = self.findings.release
        return release.before if release else objective(self.scenario, self.before)

    @property
    def monthly_tokens(self) -> float:
        """As the experiment says, else what the champion serves in a month at its capacity."""
        if self.plan.monthly_tokens is not None:
            return self.plan.monthly_tokens
        level = self.before.measurement
        output = self.scenario.objective == "usd_per_million_output_tokens"
        return (level.output_rate if output else level.total_rate) * HOURS_A_MONTH * 3600

    @property
    def per_million(self) -> tuple[float, float, float]:
        """The verdict's effect in $/M: estimate and interval."""
        effect = self.verdict.effect
        return self.today * effect.estimate, self.today * effect.low, self.today * effect.high

    @property
    def per_month(self) -> tuple[float, float, float]:
        """The same in dollars a month."""
        estimate, low, high = (value * self.monthly_tokens / 1e6 for value in self.per_million)
        return estimate, low, high

    @property
    def winner(self) -> Trial:
        """What to serve: the challenger, the champion on the new release, or the champion as it is."""
        if self.verdict.outcome == "switch":
            assert self.challenger is not None
            return self.challenger
        if self.verdict.outcome == "upgrade":
            assert self.after is not None
            return self.after
        return self.before


def retune(
    champion: Champion,
    both: Sides,
    changes: Sequence[Change],
    *,
    study: "optuna.Study",
    tracker: Tracker | None = None,
    on_step: Callable[[str], None] = lambda _what: None,
    clock: Callable[[], float] = time.monotonic,
) -> Retuned:
    """Measures the champion on both releases in turn, searches the new one, and judges.

    Raises InputError where the champion cannot be served where it is in production, InterruptedRetuneError after
    Ctrl-C.
    """
    began = clock()
    plan = both.new.experiment.retune
    bench = Bench(both, champion, plan, on_step)
    before = bench.champion_today()
    after, lost = bench.champion_on_new()
    release, unsteady = None, ""
    if after is not None:
        release, unsteady = bench.held_against("old", before, "new", after)
    findings = Findings(release=release, lost=lost, broken=missed_slos(both.old.scenario, before), unsteady=unsteady)
    on_step("Searching the new release")
    trials, settings = search_release(champion, both, plan, study=study, tracker=tracker, on_step=on_step, clock=clock)
    findings, challenger = bench.with_challenger(findings, trials, before, after)
    return Retuned(
        champion=champion,
        sides=both,
        plan=plan,
        changes=tuple(changes),
        settings=settings,
        before=before,
        after=after,
        challenger=challenger,
        trials=tuple(trials),
        study=study.study_name,
        findings=findings,
        verdict=judge(findings, plan.minimum_effect),
        repeats=tuple(bench.repeats),
        seconds=clock() - began,
    )

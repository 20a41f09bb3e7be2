"""Retune: after a release, is the champion still the champion, and on which release."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import TYPE_CHECKING

from runners.measurement import Measurement
from runners.runner import RunFailedError
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import step_key
from runners.simulated.step_time import StepTimes
from search_spaces.config import Engine, ServingConfig
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.space import PREFILL, Params, Value
from tuner.retune.champion import Champion
from tuner.retune.change import Change, space_changes
from tuner.retune.installations import check_both_installed
from tuner.retune.verdict import (
    Arm,
    Comparison,
    Findings,
    Repeat,
    TooFewError,
    Verdict,
    Window,
    best_side,
    compare,
    judge,
    settled,
)
from tuner.scenario.amounts import dollars
from tuner.scenario.experiment.budget import Retune
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import PRECISION
from tuner.search.ranking import BATCHING, Candidate, Prior, Ranking, Uninformed
from tuner.search.search import Budget, Search, finished_trials, measure_capacity, objective, ranked_trials
from tuner.search.session import Session
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Tracker, Untracked
from tuner.search.trial import Trial

if TYPE_CHECKING:
    import optuna

MOST_WINDOWS = 6
"""Loads sent to one server until two in a row agree, the warm-up included."""

ENQUEUED = 2
"""Old trials, best first, that are measured on the new release before the search goes its own way."""

SAMPLED = 6
"""Workers whose step times are compared between two releases."""

SLOW_TABLE_S = 0.25
"""Kernel tables that take longer for each worker are not read for a whole space where a sample is equal."""

TIMED = 4
"""Workers whose tables are read to learn how long that takes."""

PARTLY_RANKED = 40
HOURS_A_MONTH = 730
PRIOR = "prior"
"""User attribute of an Optuna trial: what another release said of its configuration. It is no result of this one."""

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The same experiment on the release in production and on the one to judge.

    `moved` says whether the champion's own engine is the one that changed.
    """

    old: Session
    new: Session
    before: Engine
    after: Engine

    @property
    def moved(self) -> bool:
        return self.before != self.after and self.before.name == self.after.name

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def name(self) -> str:
        if not self.changed:
            return str(self.before)
        return f"{self.before} -> {self.after.version if self.moved else self.after}"


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


class InterruptedRetuneError(Exception):
    """Ctrl-C ended the search: there is no verdict, and what was measured is in the study."""


def sides(
    experiment: Experiment, champion: Champion, to: Engine | None, make: Callable[[Experiment], Session] | None = None
) -> Sides:
    """Both sides of a retune to a release of any engine, or of none, where only the experiment changed.

    Raises InputError where the champion's own release is gone, or a release of a real engine is not installed.
    """
    session = make or (lambda asked: Session(experiment=asked))
    before = champion.config.engine
    after = to or before
    check_both_installed(experiment, before, after)
    old = session(_on(experiment, before))
    if not old.is_real and before.version not in facts_of(before).versions:
        there = ", ".join(facts_of(before).versions)
        raise InputError(
            f"the champion of {experiment.name} runs on {before}, for which there are no kernel times any more "
            f"(only for {there}): tune again and promote: servetune champion promote {experiment.name}"
        )
    new = session(_on(experiment, after)) if after != before else old
    return Sides(old=old, new=new, before=before, after=after)


def _on(experiment: Experiment, engine: Engine) -> Experiment:
    return experiment.model_copy(update={"engines": [f"{engine.name}@{engine.version}"]})


def retune(
    champion: Champion,
    both: Sides,
    changes: Sequence[Change],
    *,
    study: "optuna.Study",
    tracker: Tracker | None = None,
    told: Told = lambda _what: None,
    clock: Callable[[], float] = time.monotonic,
) -> Retuned:
    """Measures the champion on both releases in turn, searches the new one, and judges.

    Raises InputError where the champion cannot be served where it is in production, InterruptedRetuneError after
    Ctrl-C.
    """
    began = clock()
    plan = both.new.experiment.retune
    bench = _Bench(both, champion, plan, told)
    before = bench.champion_today()
    after, lost = bench.champion_on_new()
    release, unsteady = None, ""
    if after is not None:
        release, unsteady = bench.held_against("old", before, "new", after)
    findings = Findings(release=release, lost=lost, broken=_broken(both.old.scenario, before), unsteady=unsteady)
    told("Searching the new release")
    trials, settings = search_release(champion, both, plan, study=study, tracker=tracker, told=told, clock=clock)
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


def _broken(scenario: Scenario, trial: Trial) -> str:
    missed = {key: value for key, value in scenario.sla.excess(trial.measurement).items() if value > 0}
    return ", ".join(f"{key} by {value:.1%}" for key, value in missed.items())


@dataclass(slots=True)
class _Bench:
    """Where configurations are served in turn and every repeat is kept, in the order of time."""

    both: Sides
    champion: Champion
    plan: Retune
    told: Told
    repeats: list[Repeat] = field(default_factory=list)

    def champion_today(self) -> Trial:
        """The champion at its capacity where it serves now. Raises InputError where it cannot be served."""
        self.told("Measuring the champion where it is in production")
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
        self.told("Measuring the champion on the new release")
        session = self.both.new
        config = replace(self.champion.config, engine=self.both.after)
        try:
            trial = _at_capacity(session, config, guess=self.champion.level.load)
        except (InfeasibleError, RunFailedError) as error:
            return None, str(error)
        broken = _broken(session.scenario, trial)
        return (None, f"it breaks {broken} at the lowest load that was tried") if broken else (trial, "")

    def held_against(self, first: Arm, one: Trial, second: Arm, other: Trial) -> tuple[Comparison | None, str]:
        """Two configurations in turn, A B B A with a sentinel around, until the repeats are done or equal."""
        loads = self._loads(one, other)
        sentinel = self._sentinel()
        taken: list[Repeat] = []
        for block in range(self.plan.repeats // 2):
            self.told(f"Serving {first} and {second} in turn, {2 * block} of {self.plan.repeats} repeats done")
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


# The search of the new release


def search_release(
    champion: Champion,
    both: Sides,
    plan: Retune,
    *,
    study: "optuna.Study",
    tracker: Tracker | None,
    told: Told,
    clock: Callable[[], float],
) -> tuple[list[Trial], tuple[str, ...]]:
    """The trials of the new release, the champion's configuration among the first, and what of the space changed.

    Old trials only say what to try first. Raises InterruptedRetuneError.
    """
    session = both.new
    settings = [str(change) for change in space_changes(champion.dimensions, session.scenario.space.dimensions)]
    settings += [f"setting {name} of the champion is gone" for name in champion.removed]
    settings += enqueue_priors(champion, session, both.after, study)
    ranking = informed(rank_release(champion, both, clock), champion, both)
    sampler = SurrogateSampler(session.prior, ranking, seed=session.experiment.seed)
    study.sampler = sampler
    done = len(finished_trials(study))
    search = Search(
        prior=session.prior,
        runner=session.runner,
        study=study,
        sampler=sampler,
        tracker=Marked(tracker or Untracked(), study),
        budget=Budget(trials=done + plan.trials),
        progress=lambda tried, _best: told(f"Searching the new release: {tried - done} of {plan.trials} trials"),
    )
    search.run()
    if search.interrupted:
        raise InterruptedRetuneError(study.study_name)
    return search.trials(), tuple(settings)


class Marked:
    """A tracker that tells of each trial what another release had said of its configuration."""

    def __init__(self, tracker: Tracker, study: "optuna.Study") -> None:
        self._tracker = tracker
        self._study = study

    def log(self, trial: Trial) -> None:
        said = self._study.get_trials(deepcopy=False)[trial.number].user_attrs.get(PRIOR, "")
        self._tracker.log(replace(trial, prior=said) if said else trial)


def enqueue_priors(champion: Champion, session: Session, engine: Engine, study: "optuna.Study") -> list[str]:
    """Has the champion's and the best old configurations tried first; says which could not be.

    Each carries, as the user attribute PRIOR, what it cost on its release: a reason to try it, and nothing else.
    """
    space = session.scenario.space
    left_out = []
    for trial in (champion.trial, *champion.others)[: ENQUEUED + 1]:
        assert trial.config is not None
        if trial.config.engine.name != engine.name:
            continue
        params = space.drawn({**_defaults(space.dimensions), **space.params(replace(trial.config, engine=engine))})
        gone = [f"{name}={value}" for name, value in params.items() if value not in space.dimensions.get(name, ())]
        if gone:
            left_out.append(f"trial {trial.number} of {champion.study} is not tried: no {', '.join(gone)} any more")
            continue
        figure = dollars(session.scenario.usd_per_million(trial.measurement))
        said = f"{figure} on {trial.config.engine} (study {champion.study}, trial {trial.number}); a prior, no result"
        study.enqueue_trial(params, user_attrs={PRIOR: said}, skip_if_exists=True)
    return left_out


def _defaults(dimensions: Mapping[str, Sequence[Value]]) -> Params:
    """The first value of each setting: what a knob that is new has in configurations that did not know it."""
    return {name: values[0] for name, values in dimensions.items()}


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
        return prior.rank()
    other = Session(experiment=_on(session.experiment, older))
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
    return frozenset(item for item in params.items() if not item[0].startswith((BATCHING, PREFILL)))


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

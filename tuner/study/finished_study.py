"""FinishedStudy: a study read back from its journal alone, whether its search ended or was interrupted."""

import datetime as dt
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.measurement import Measurement
from search_spaces.config import ServingConfig
from search_spaces.errors import InputError, nearest_first
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import list_experiments
from tuner.scenario.experiment.reading import as_written, rebuilt_experiment
from tuner.scenario.scenario import Scenario
from tuner.search.ranking import Ranking
from tuner.search.session import PREDICTING, Session
from tuner.search.stored import finished_trials
from tuner.search.trial import Trial
from tuner.study.answer import Answer
from tuner.study.asked import differing
from tuner.study.attributes import APART, EXPERIMENT, Summary, kept_end, kept_summary
from tuner.study.journal import read_study
from tuner.study.migration import ASKED, SUFFIX

if TYPE_CHECKING:
    import optuna
    import pandas as pd

RELEASE = "servetune"
"""The key of an experiment that names the release of servetune that asked it."""

OWN_NAME = re.compile(r"(.+)-[0-9a-f]{8}")
"""A study's own name: its experiment's, and a digest of the experiment."""


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """A study as its journal has it: the experiment, every trial that ended, and what was compared with them.

    `text` is the experiment's file, as it was when the study was tuned last; `release` is the servetune that asked.
    `waiting` counts trials that have begun and not ended.
    """

    path: Path
    experiment: Experiment
    text: str
    release: str
    trials: tuple[Trial, ...]
    waiting: int
    summary: Summary | None
    study: "optuna.Study" = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def session(self) -> Session:
        """The parts that asked: scenario, prior and runner."""
        return Session(experiment=self.experiment)

    @property
    def scenario(self) -> Scenario:
        return self.session.scenario

    @property
    def predicted(self) -> bool:
        """Whether every figure is a prediction."""
        return self.experiment.runner in PREDICTING

    @property
    def unfinished(self) -> str:
        """Why the search may not have ended, in words; empty where it has."""
        if kept_end(self.study) == len(self.trials):
            return ""
        if self.summary is not None and self.summary.interrupted:
            return "its search was interrupted"
        if self.summary is None or self.summary.trials != len(self.trials):
            return "its search is still running, or was killed"
        return ""

    @property
    def ended(self) -> dt.datetime:
        """When its last trial ended."""
        ends = [trial.datetime_complete for trial in self.study.get_trials(deepcopy=False)]
        return max(end for end in ends if end is not None)

    @cached_property
    def answer(self) -> Answer:
        """The study's answer. What was infeasible of the space is known where the search ended."""
        summary = self.summary
        excluded = dict(summary.excluded) if summary else {}
        return Answer(
            scenario=self.scenario,
            trials=self.trials,
            ranking=Ranking(candidates=(), excluded=excluded),
            baseline=self.baseline,
            frontier=summary.frontier if summary else (),
        )

    @cached_property
    def ranked(self) -> list[Trial]:
        """Measured trials, best first."""
        return self.answer.ranked

    @property
    def best(self) -> Trial | None:
        """The cheapest trial that meets the SLA or, if none does, the one that misses it least."""
        return next(iter(self.ranked), None)

    @property
    def curve(self) -> list[Measurement]:
        """The best configuration at every load that it was run at, lowest first."""
        beyond = self.summary.curve if self.summary and not self.unfinished else ()
        return sorted((*self.winner.levels, *beyond), key=lambda level: level.load)

    @property
    def meets_sla(self) -> bool:
        return self.answer.meets_sla

    @property
    def winner(self) -> Trial:
        """The best trial. Raises InputError, with the causes, where nothing was measured."""
        best = self.best
        if best is None:
            causes = ", ".join(f"{cause} ({count})" for cause, count in self.answer.ended().items())
            raise InputError(f"{self.path}: none of its {len(self.trials)} trials was measured: {causes}")
        return best

    @property
    def winning_config(self) -> ServingConfig:
        """What serves in the best trial. Raises InputError where nothing was measured."""
        config = self.winner.config
        assert config is not None
        return config

    @cached_property
    def baseline(self) -> Trial | None:
        """The default configuration of the engine that is best, at its capacity; None where it is not known.

        As the search kept it, else predicted now. An unpredicted one is not measured now: that takes GPUs.
        """
        if self.summary is not None:
            return self.summary.baseline
        measured = [trial for trial in self.trials if trial.ending == "measured"]
        if not measured or not self.predicted:
            return None
        best = Answer(
            scenario=self.scenario, trials=measured, ranking=Ranking(candidates=(), excluded={}), baseline=None
        ).best
        assert best is not None
        assert best.config is not None
        try:
            return self.session.default_trial(best.config.engine)
        except InputError:
            return None

    def trials_frame(self) -> "pd.DataFrame":
        """A row for each trial, by its number: how it ended, its knobs and its figures (see tuner.study.frames)."""
        from tuner.study.frames import trials_frame

        return trials_frame(self.scenario, self.trials)

    def levels_frame(self) -> "pd.DataFrame":
        """A row for each load of each measured trial: throughput, cost and latencies (see tuner.study.frames)."""
        from tuner.study.frames import levels_frame

        return levels_frame(self.scenario, self.trials)


def open_finished(studies: Path, name: str) -> FinishedStudy:
    """A study to look at, by its name, its file, or its experiment's name where that has just one study.

    Raises InputError for a study that is unknown, empty, foreign or unreadable.
    """
    path = find_study(studies, name)
    study = read_study(path.parent, path.stem)
    trials = tuple(finished_trials(study))
    asked = study.user_attrs.get(ASKED)
    if not isinstance(asked, Mapping):
        raise InputError(f"{path}: is no study of servetune: it does not say what it asks")
    if not trials:
        raise InputError(f"{path}: no trial of this study has ended yet; `servetune tune` goes on with it")
    kept = study.user_attrs.get(EXPERIMENT, {})
    apart = {key: kept.get(key, {}) for key in APART}
    experiment = _experiment(path, {**asked, **apart}, kept)
    return FinishedStudy(
        path=path,
        experiment=experiment,
        text=kept.get("text") or as_yaml(asked),
        release=str(asked.get(RELEASE, "unknown")),
        trials=trials,
        waiting=sum(not trial.state.is_finished() for trial in study.get_trials(deepcopy=False)),
        summary=kept_summary(path, study),
        study=study,
    )


# Finding it


def newest_finished(studies: Path, name: str) -> tuple[FinishedStudy, tuple[str, ...]]:
    """The study that `name` means, of an experiment's several the one whose search ended last; and the others.

    Raises InputError as `open_finished` does, and where none of several has ended.
    """
    own = _of_experiment(name, _known(studies, name))
    if len(own) < 2:  # noqa: PLR2004 one, or a study's own name
        return open_finished(studies, name), ()
    ended = [found for found in map(partial(_if_finished, studies), own) if found is not None]
    if not ended:
        raise InputError(f"{studies}: none of the {len(own)} studies of {name} has ended: {', '.join(own)}")
    newest = max(ended, key=lambda found: found.ended)
    return newest, tuple(study for study in own if study != newest.name)


def _if_finished(studies: Path, name: str) -> FinishedStudy | None:
    """None where it has not ended, or cannot be asked again by this servetune."""
    try:
        found = open_finished(studies, name)
    except InputError:
        return None
    return None if found.unfinished else found


def _known(studies: Path, name: str) -> list[str]:
    """The studies there; none where `name` is itself one's file."""
    try:
        if name.endswith(SUFFIX) and Path(name).is_file():
            return []
        return sorted(file.stem for file in studies.glob(f"*{SUFFIX}"))
    except OSError as error:
        raise InputError(f"{studies}: cannot be read: {error.strerror}") from None


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(SUFFIX).removesuffix(".yaml")


def _of_experiment(name: str, known: Sequence[str]) -> list[str]:
    """An experiment's studies; none where `name` is a study's own."""
    stem = _stem(name)
    if stem in known:
        return []
    return [study for study in known if (match := OWN_NAME.fullmatch(study)) and match[1] == stem]


def find_study(studies: Path, name: str) -> Path:
    """The file of the study that `name` means. Raises InputError that lists the nearest."""
    known = _known(studies, name)
    if name.endswith(SUFFIX) and Path(name).is_file():
        return Path(name)
    stem = _stem(name)
    if stem in known:
        return studies / f"{stem}{SUFFIX}"
    own = _of_experiment(name, known)
    if len(own) == 1:
        return studies / f"{own[0]}{SUFFIX}"
    if own:
        raise InputError(f"{studies}: {len(own)} studies of {stem}; name one: {', '.join(own)}")
    if not known:
        raise InputError(f"{studies}: there are no studies; begin one with `servetune tune`, or see --studies")
    raise InputError(f"{studies}: there is no study {name!r}; valid: {', '.join(nearest_first(stem, known))}")


# The experiment


def _experiment(path: Path, asked: Mapping[str, Any], kept: Mapping[str, Any]) -> Experiment:
    """The experiment that asks exactly this. Raises InputError where this release cannot ask it."""
    match = OWN_NAME.fullmatch(path.stem)
    home = Path(kept.get("path") or f"{match[1] if match else path.stem}.yaml")
    trace = asked.get("workload", {}).get("trace")
    problem = ""
    for folder in _folders(home, path) if trace else (home.parent,):
        experiment = rebuilt_experiment(path, asked, folder / home.name)
        if trace and not (folder / trace).is_file():
            continue
        before = {key: value for key, value in asked.items() if key not in (RELEASE, *APART)}
        other = differing(before, Session(experiment=experiment).asked, newer=False)
        if not other:
            return experiment
        problem = f"this release of servetune asks it otherwise ({', '.join(other)})"
    if trace:
        problem = f"the trace that it replays, {trace}, is not to be found or has changed"
    raise InputError(f"{path}: {problem}; it was asked by servetune {asked.get(RELEASE, 'unknown')}")


def _folders(home: Path, journal: Path) -> Iterator[Path]:
    """Where the experiment's file, and with it its trace, may lie."""
    yield home.parent
    yield journal.parent
    yield from {path.parent for path in list_experiments().values()}


def as_yaml(experiment: Mapping[str, Any]) -> str:
    """An experiment as an experiment's file, for a study that kept no file."""
    from ruamel.yaml import YAML

    data = as_written(experiment)
    if data.get("price", {}).get("date"):
        data["price"]["date"] = dt.date.fromisoformat(data["price"]["date"])
    out = io.StringIO()
    YAML().dump(data, out)
    return out.getvalue()

"""What a study keeps beside its trials, so that it can be read without the files that began it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runners.measurement import Measurement
from search_spaces.config import ServingConfig
from search_spaces.errors import InputError
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.trial import Trial
from tuner.study.answer import Answer

if TYPE_CHECKING:
    import optuna
    from pydantic import TypeAdapter

EXPERIMENT = "experiment"
"""Study attribute that holds the experiment's file: its path, text, budget and sampler."""

APART = ("budget", "sampler")
"""Keys of an experiment that change nothing of what it asks: the latest of a study are kept with its file."""

ENDED = "ended"
"""Study attribute that counts the trials after which a retune's search ended."""

SUMMARY = "summary"
"""Study attribute that holds what a search found out beside its trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a search found out beside its trials, as of `trials` finished ones.

    `excluded` counts the combinations of the space that are no answer, by cause, of `combinations` in all. `curve`
    is the best configuration at loads far from its capacity, `baseline` and `frontier` are those of Answer.
    """

    trials: int
    interrupted: bool
    combinations: int
    excluded: dict[str, int]
    curve: tuple[Measurement, ...] = ()
    baseline: Trial | None = None
    frontier: tuple[tuple[ServingConfig, Measurement], ...] = ()


def keep_experiment(study: "optuna.Study", experiment: Experiment) -> None:
    """Keeps where the experiment's file is, its budget, its sampler and, where it asks just this, its text."""
    path = experiment.path
    apart = experiment.model_dump(mode="json", include={*APART})
    kept = {"path": str(path.absolute()), **apart}
    if path.is_file() and _as_filed(experiment).model_dump() == experiment.model_dump():
        kept["text"] = path.read_text(encoding="utf-8-sig")
    _keep(study, EXPERIMENT, kept)


def _as_filed(experiment: Experiment) -> Experiment:
    """What the file asks now, put to the same runner and sampler."""
    return read_experiment(experiment.path, runner=experiment.runner, sampler=experiment.sampler.name)


def keep_summary(
    study: "optuna.Study", answer: Answer, curve: Sequence[Measurement] = (), *, interrupted: bool
) -> None:
    """Keeps what is dear to find out again: the default configuration, the frontier, and what was infeasible."""
    summary = Summary(
        trials=len(answer.trials),
        interrupted=interrupted,
        combinations=answer.ranking.combinations,
        excluded=dict(answer.excluded()),
        curve=tuple(curve),
        baseline=answer.baseline,
        frontier=tuple(answer.frontier),
    )
    _keep(study, SUMMARY, json.loads(_adapter().dump_json(summary, exclude_defaults=True)))


def keep_end(study: "optuna.Study", trials: int) -> None:
    """Keeps that a search, one without a summary of its own, ended after so many trials."""
    _keep(study, ENDED, trials)


def kept_end(study: "optuna.Study") -> int | None:
    """What `keep_end` kept; None before that."""
    kept = study.user_attrs.get(ENDED)
    return kept if isinstance(kept, int) else None


def kept_summary(path: Path, study: "optuna.Study") -> Summary | None:
    """What `keep_summary` kept, None before a search has ended. Raises InputError for what is no summary."""
    kept = study.user_attrs.get(SUMMARY)
    if kept is None:
        return None
    try:
        return _adapter().validate_json(json.dumps(kept))
    except ValueError as error:
        raise InputError(f"{path}: its summary cannot be read: {' '.join(str(error).split())[:200]}") from None


def _keep(study: "optuna.Study", key: str, value: Mapping[str, object] | int) -> None:
    if study.user_attrs.get(key) != value:
        study.set_user_attr(key, value)


@cache
def _adapter() -> "TypeAdapter[Summary]":
    from pydantic import TypeAdapter

    return TypeAdapter(Summary)

"""For scripts: read an experiment, tune it, and open a study, in a line each."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import UnknownNameError
from tuner.scenario.experiment import reading
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import find_experiment
from tuner.study.finished_study import FinishedStudy, open_finished

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

STUDIES = Path("studies")

Asked = str | Path | Experiment
"""An experiment's name, its file, or the experiment itself."""


@dataclass(frozen=True, kw_only=True)
class Study(FinishedStudy):
    """A finished study and its report."""

    def report(self, kind: str = "html", *, tokens_per_month: float | None = None, price: float | None = None) -> str:
        """The report as html, md, json or csv text; `price` is dollars for a million tokens sold.

        Raises InputError where nothing was measured.
        """
        from tuner.show.report.economics import Demand
        from tuner.show.report.render import FORMATS
        from tuner.show.report.report import Report

        if kind not in FORMATS:
            raise UnknownNameError("format", kind, FORMATS)
        return FORMATS[kind](
            Report(finished=self, demand=Demand(tokens_per_month=tokens_per_month, usd_per_million=price))
        )

    def _repr_markdown_(self) -> str:
        """Experiment, verdict and figures, as notebooks show them."""
        from tuner.show.markdown import to_markdown

        return to_markdown(self.answer)


def read_experiment(name_or_path: str | Path) -> Experiment:
    """An experiment by its name or its file. Raises InputError with everything that is wrong with it."""
    return reading.read_experiment(find_experiment(str(name_or_path)))


def tune(
    experiment: Asked,
    *,
    trials: int | None = None,
    studies: str | Path = STUDIES,
    study: str | None = None,
    track: bool = False,
    sampler: "BaseSampler | None" = None,
) -> Study:
    """Searches, and returns the study with its answer; one that exists is gone on with.

    `trials` counts those that the study has already, by default the experiment's budget. Nothing is printed; with
    `track`, every trial is an MLflow run as on the command line. `sampler` is any of Optuna's, in place of the one that
    the experiment names. Raises InputError.
    """
    from rich.console import Console

    from tuner.app.run import run
    from tuner.search.session import Session
    from tuner.study.asked import study_of
    from tuner.study.outcome import Where

    asked = experiment if isinstance(experiment, Experiment) else read_experiment(experiment)
    session = Session(experiment=asked)
    where = Where(studies=Path(studies), study=study or study_of(Path(studies), session), track=track)
    run(session, where, trials=trials, console=Console(quiet=True), sampler=sampler)
    return open_study(where.study, studies=studies)


def open_study(name: str, *, studies: str | Path = STUDIES) -> Study:
    """A study by its name, its file, or its experiment's name where that has one study. Raises InputError."""
    found = open_finished(Path(studies), name)
    return Study(**{field.name: getattr(found, field.name) for field in fields(found)})

"""Use from Python: read an experiment, tune it, and open a study, in a line each."""

from pathlib import Path

from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment as read_file
from tuner.study import finished_study
from tuner.study.finished_study import Finished

STUDIES = Path("studies")

Asked = str | Path | Experiment
"""An experiment's name, its file, or the experiment itself."""


def read_experiment(name_or_path: str | Path) -> Experiment:
    """An experiment by its name or its file. Raises InputError with everything that is wrong with it."""
    return read_file(find_experiment(str(name_or_path)))


def tune(
    experiment: Asked,
    *,
    trials: int | None = None,
    studies: str | Path = STUDIES,
    study: str | None = None,
    track: bool = False,
) -> Finished:
    """Searches, and returns the study with its answer; one that exists is gone on with.

    `trials` counts those that the study has already, by default the experiment's budget. Nothing is printed; with
    `track`, every trial is an MLflow run as on the command line. Raises InputError.
    """
    from rich.console import Console

    from tuner.app import tune as run
    from tuner.search.session import Session
    from tuner.study.outcome import Where

    asked = experiment if isinstance(experiment, Experiment) else read_experiment(experiment)
    session = Session(experiment=asked)
    where = Where(studies=Path(studies), study=study or session.study_name, track=track)
    run(session, where, trials=trials, console=Console(quiet=True))
    return open_finished(where.study, studies=studies)


def open_finished(name: str, *, studies: str | Path = STUDIES) -> Finished:
    """A study by its name, its file, or its experiment's name where that has one study. Raises InputError."""
    return finished_study.open_finished(Path(studies), name)

"""servetune simulate: one configuration, predicted."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InfeasibleError, InputError
from tuner.cli import completion
from tuner.cli.arguments import (
    EXIT_SLA_MISSED,
    STUDIES,
    Experiment,
    Json,
    Load,
    Quiet,
    Settings,
    Studies,
    console,
    print_json,
)

if TYPE_CHECKING:
    from runners.measurement import Measurement
    from search_spaces.config import ServingConfig
    from tuner.scenario.scenario import Scenario
    from tuner.search.session import Session
    from tuner.study.calibration import AppliedCalibration, Measured

Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="STUDY",
        help="Correct the prediction by what this study measured or replayed.",
        autocompletion=completion.studies,
    ),
]


def simulate(
    experiment: Experiment,
    settings: Settings = None,
    load: Load = None,
    calibrate: Calibrate = None,
    studies: Studies = STUDIES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict one configuration: the engine's default on this experiment's GPUs, with your settings changed.

    What is not set follows: as many replicas as the GPUs hold.

        servetune simulate gpt-oss-120b-b200-chat --set layout.tensor=4 --set batching.max_sequences=256

        servetune simulate gpt-oss-120b-b200-chat --load 64 --json | jq .ttft_ms.p99

        servetune simulate my-experiment.yaml --calibrate my-measured-study --set layout.tensor=8
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tuner.show.terminal import show_experiment

    measured = _measured(calibrate, studies)
    session = _session(experiment, measured)
    scenario = session.scenario
    spoken = console(errors=as_json, quiet=quiet)
    show_experiment(spoken, scenario)
    with spoken.status("Reading kernel times and simulating"):
        config = session.changed(settings or [])
        level, calibration = _predicted(session, measured, config, load)
    if as_json:
        _print_level(scenario, config, level, calibration)
    else:
        _show_level(scenario, config, level, calibration)
    if not scenario.sla.met_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _measured(study: str | None, studies: Path) -> "Measured | None":
    """What to calibrate by. Raises InputError for a study that measured nothing."""
    if study is None:
        return None
    from tuner.study.calibration import measured_levels
    from tuner.study.finished_study import open_finished

    return measured_levels(open_finished(studies, study))


def _session(experiment: str, measured: "Measured | None") -> "Session":
    """The experiment's, simulated where it is a replay, or where predictions are corrected."""
    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment
    from tuner.search.session import Session
    from tuner.study.calibration import calibrated_by

    asked = read_experiment(find_experiment(experiment))
    if asked.runner == "recorded" or measured is not None:
        asked = read_experiment(find_experiment(experiment), runner="simulated")
    if measured is None:
        return Session(experiment=asked)
    return Session(experiment=asked, calibrate=lambda silicon: calibrated_by(measured, silicon))


def _predicted(
    session: "Session", measured: "Measured | None", config: "ServingConfig", load: float | None
) -> "tuple[Measurement, AppliedCalibration | None]":
    """Raises InputError for a configuration that cannot be served."""
    from runners.runner import RunFailedError

    try:
        level = session.measure(config, load)
        return level, _applied(session, measured, config, level)
    except (InfeasibleError, RunFailedError) as error:
        raise InputError(f"{config} cannot be served: {error}") from None


def _applied(
    session: "Session", measured: "Measured | None", config: "ServingConfig", level: "Measurement"
) -> "AppliedCalibration | None":
    """Raises InfeasibleError."""
    from tuner.study.calibration import applied

    if measured is None or session.calibrated is None:
        return None
    loaded = session.scenario.workload.at(level.load)
    return applied(measured, session.calibrated, session.tables, config, loaded, level)


def _print_level(
    scenario: "Scenario", config: "ServingConfig", level: "Measurement", calibration: "AppliedCalibration | None"
) -> None:
    from tuner.show.calibration import calibration_document
    from tuner.show.figures import config_figures, level_figures

    calibrated = {} if calibration is None else {"calibration": calibration_document(calibration)}
    about = {"experiment": scenario.name, "config": config_figures(config)}
    print_json({**about, **level_figures(scenario, level), **calibrated})


def _show_level(
    scenario: "Scenario", config: "ServingConfig", level: "Measurement", calibration: "AppliedCalibration | None"
) -> None:
    from tuner.show.calibration import show_calibration
    from tuner.show.terminal import show_measurement

    out = console()
    show_measurement(out, scenario, config, level)
    if calibration is not None:
        show_calibration(out, calibration)

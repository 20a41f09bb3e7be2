"""servetune tune and simulate: search an experiment, or predict one configuration."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InfeasibleError, InputError
from tuner.cli import completion
from tuner.cli.arguments import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SLA_MISSED,
    STUDIES,
    Experiment,
    Json,
    Quiet,
    Runner,
    Settings,
    Studies,
    TrackingUri,
    Verbose,
    console,
    one_voice,
    print_json,
)

if TYPE_CHECKING:
    from runners.measurement import Measurement
    from search_spaces.config import ServingConfig
    from tuner.scenario.experiment.experiment import Experiment as Asked
    from tuner.scenario.scenario import Scenario
    from tuner.search.session import Session
    from tuner.search.trial import Trial
    from tuner.study.calibration import AppliedCalibration, Measured
    from tuner.study.outcome import Outcome


def tune(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Experiment,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in the study, finished ones included; overrides budget.trials."),
    ] = None,
    runner: Runner = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Name of the study to begin or resume; by default made from the experiment.",
            autocompletion=completion.studies,
        ),
    ] = None,
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    track: Annotated[bool, typer.Option(help="Log every trial as an MLflow run.")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search for the cheapest configuration that meets the SLA.

    Every finished trial is kept in the study file at once: Ctrl-C loses nothing, and the same command goes on where
    it stopped. Change the experiment file and a new study begins.

        servetune tune gpt-oss-120b-b200-chat --trials 100

        servetune tune my-experiment.yaml --study friday --verbose

        servetune tune recorded/deepseek-r1-b200-1024-1024 --json | jq .winner.usd_per_million_output_tokens
    """
    one_voice(quiet=quiet, verbose=verbose)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tuner.app.run import run
    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment
    from tuner.search.session import Session
    from tuner.show.progress import trial_line
    from tuner.show.terminal import show_next, show_verdict
    from tuner.study.outcome import Where

    session = Session(experiment=read_experiment(find_experiment(experiment), runner=runner))
    where = Where(studies=studies, study=study or session.study_name, track=track, tracking_uri=tracking_uri)
    out, bars = console(), console(errors=as_json, quiet=quiet)

    def on_trial(trial: "Trial") -> None:
        if verbose:
            bars.print(trial_line(session.scenario, trial), markup=False, soft_wrap=True)

    spoken = console(quiet=True) if quiet or as_json else bars
    outcome = run(session, where, trials=trials, console=spoken, bars=bars, on_trial=on_trial)
    if as_json:
        from tuner.show.outcome import outcome_document

        print_json(outcome_document(session, outcome, where))
    else:
        if quiet:
            show_verdict(out, outcome.answer)
        show_next(out, outcome, experiment=experiment, where=where, trials=trials, runner=runner, brief=quiet)
    _end(outcome)


def _end(outcome: "Outcome") -> None:
    """Raises Exit unless the search ran to its end and found what meets the SLA."""
    if outcome.broken:
        raise typer.Exit(EXIT_FAILED)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.answer.meets_sla:
        raise typer.Exit(EXIT_SLA_MISSED)


def simulate(
    experiment: Experiment,
    settings: Settings = None,
    load: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1_000_000,
            help="Load (requests in flight, requests/s or pace); by default the highest that meets the SLA.",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Correct the prediction by what this study measured or replayed.",
            autocompletion=completion.studies,
        ),
    ] = None,
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
    from runners.runner import RunFailedError
    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment
    from tuner.show.calibration import show_calibration
    from tuner.show.terminal import show_experiment, show_measurement
    from tuner.study.calibration import Measured, measured_levels
    from tuner.study.finished_study import open_finished

    asked = read_experiment(find_experiment(experiment))
    measured: Measured | None = None
    if calibrate is not None:
        measured = measured_levels(open_finished(studies, calibrate))
    if asked.runner == "recorded" or measured is not None:
        asked = read_experiment(find_experiment(experiment), runner="simulated")
    session = _session(asked, measured)
    scenario = session.scenario
    spoken = console(errors=as_json, quiet=quiet)
    show_experiment(spoken, scenario)
    with spoken.status("Reading kernel times and simulating"):
        config = session.changed(settings or [])
        try:
            level = session.measure(config, load)
            calibration = _applied(session, measured, config, level)
        except (InfeasibleError, RunFailedError) as error:
            raise InputError(f"{config} cannot be served: {error}") from None
    if as_json:
        _print_level(scenario, config, level, calibration)
    else:
        out = console()
        show_measurement(out, scenario, config, level)
        if calibration is not None:
            show_calibration(out, calibration)
    if not scenario.sla.met_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _session(asked: "Asked", measured: "Measured | None") -> "Session":
    from tuner.search.session import Session
    from tuner.study.calibration import calibrated_by

    if measured is None:
        return Session(experiment=asked)
    return Session(experiment=asked, calibrate=lambda silicon: calibrated_by(measured, silicon))


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

"""servetune tune and simulate: search an experiment, or predict one configuration."""

import os
from typing import Annotated

import typer

from search_spaces.errors import InfeasibleError, InputError
from tuner.cli.arguments import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SLA_MISSED,
    STUDIES,
    Experiment,
    Runner,
    Settings,
    Studies,
    TrackingUri,
    console,
)


def tune(
    experiment: Experiment,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in the study, finished ones included; overrides budget.trials."),
    ] = None,
    runner: Runner = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study to begin or resume; by default made from the experiment."),
    ] = None,
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    track: Annotated[bool, typer.Option(help="Log every trial as an MLflow run.")] = True,
) -> None:
    """Search for the cheapest configuration that keeps the SLA.

    Every finished trial is kept in the study file at once: Ctrl-C loses nothing, and the same command goes on where
    it stopped. Change the experiment file and a new study begins.

        servetune tune experiments/gpt-oss-120b-b200-chat.yaml --trials 100
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tuner.console import show_next
    from tuner.experiment import find_experiment, read_experiment
    from tuner.session import Session, Where
    from tuner.session import tune as run

    session = Session(question=read_experiment(find_experiment(experiment), runner=runner))
    where = Where(studies=studies, study=study or session.study_name, track=track, tracking_uri=tracking_uri)
    out = console()
    outcome = run(session, where, trials=trials, console=out)
    show_next(out, outcome, question=experiment, where=where, trials=trials, runner=runner)
    if outcome.broken:
        raise typer.Exit(EXIT_FAILED)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.answer.keeps_sla:
        raise typer.Exit(EXIT_SLA_MISSED)


def simulate(
    experiment: Experiment,
    settings: Settings = None,
    load: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1_000_000,
            help="Load (requests in flight, requests/s or pace); by default the highest that keeps the SLA.",
        ),
    ] = None,
) -> None:
    """Predict one configuration: the engine's default on this experiment's GPUs, with your settings changed.

    What is not set follows: as many replicas as the GPUs hold.

        servetune simulate gpt-oss-120b-b200-chat --set layout.tensor=4 --set batching.max_sequences=256
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from runners.runner import RunFailedError
    from tuner.console import show_measurement, show_question
    from tuner.experiment import find_experiment, read_experiment
    from tuner.session import Session

    question = read_experiment(find_experiment(experiment))
    if question.runner == "recorded":
        question = read_experiment(find_experiment(experiment), runner="simulated")
    session = Session(question=question)
    scenario = session.scenario
    config = session.changed(settings or [])
    out = console()
    show_question(out, scenario)
    try:
        level = session.measure(config, load)
    except (InfeasibleError, RunFailedError) as error:
        raise InputError(f"{config} cannot be served: {error}") from None
    show_measurement(out, scenario, config, level)
    if not scenario.sla.kept_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)

"""servetune tune: search an experiment."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

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
    Studies,
    TrackingUri,
    Verbose,
    console,
    one_voice,
    print_json,
)

if TYPE_CHECKING:
    from tuner.search.trial import Trial
    from tuner.study.outcome import Outcome

Trials = Annotated[
    int | None,
    typer.Option(min=1, help="Trials in the study, finished ones included; overrides budget.trials."),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        help="Name of the study to begin or resume; by default made from the experiment.",
        autocompletion=completion.studies,
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="Who proposes what is tried, whatever the experiment says: see `sampler` there.",
        autocompletion=completion.samplers,
    ),
]
Track = Annotated[bool, typer.Option(help="Log every trial as an MLflow run.")]


def tune(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Experiment,
    trials: Trials = None,
    runner: Runner = None,
    sampler: Sampler = None,
    study: StudyName = None,
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    track: Track = True,
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
    from tuner.study.asked import asked_otherwise, study_of
    from tuner.study.outcome import Where

    session = Session(experiment=read_experiment(find_experiment(experiment), runner=runner, sampler=sampler))
    where = Where(studies=studies, study=study or study_of(studies, session), track=track, tracking_uri=tracking_uri)
    out, bars = console(), console(errors=as_json, quiet=quiet)
    for sentence in () if study else asked_otherwise(studies, session):
        bars.print(sentence, markup=False, soft_wrap=True)

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
        again = _options(trials=trials, runner=runner, sampler=sampler)
        show_next(out, outcome, experiment=experiment, where=where, again=again, brief=quiet)
    _end(outcome)


def _options(**given: str | int | None) -> list[str]:
    """The options that were given, as they were."""
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


def _end(outcome: "Outcome") -> None:
    """Raises Exit unless the search ran to its end and found what meets the SLA."""
    if outcome.broken:
        raise typer.Exit(EXIT_FAILED)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.answer.meets_sla:
        raise typer.Exit(EXIT_SLA_MISSED)

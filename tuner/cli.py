"""The servetune command: reads what the user typed, composes the parts, and shows what came of it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InfeasibleError, InputError, UnknownNameError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_USAGE = 2
EXIT_SLA_MISSED = 3
EXIT_INTERRUPTED = 130

STUDIES = Path("studies")
PIPE_WIDTH = 200
"""Columns of output that goes to no terminal: names stay whole for grep."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Finds the cheapest way to serve a language model that keeps its latency promise.

Start here:

- `servetune list experiments` shows the questions that ship with it

- `servetune tune gpt-oss-120b-b200-chat` answers one of them in seconds, on simulated hardware

- `servetune simulate gpt-oss-120b-b200-chat --set layout.tensor=4` predicts one configuration

Exit codes: 0 answered, 1 failed, 2 unusable input, 3 no configuration keeps the SLA, 130 interrupted.
""",
)

ExperimentArgument = Annotated[
    str,
    typer.Argument(metavar="EXPERIMENT", help="A YAML file, or the name of one that ships with servetune."),
]


def main() -> None:
    """The console script: input errors are told on one line each and exit with 2, without a traceback."""
    try:
        app()
    except InputError as error:
        _stop(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        _stop("interrupted", EXIT_INTERRUPTED)


def _stop(message: str, code: int) -> None:
    sys.stderr.write(f"servetune: {message}\n")
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"servetune {version('servetune')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def tune(
    experiment: ExperimentArgument,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in the study, finished ones included; overrides budget.trials."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study to begin or resume; by default made from the experiment."),
    ] = None,
    studies: Annotated[Path, typer.Option(help="Folder of the study files.")] = STUDIES,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow store; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
            envvar="MLFLOW_TRACKING_URI",
            show_envvar=False,
        ),
    ] = None,
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

    session = Session(question=read_experiment(find_experiment(experiment)))
    where = Where(studies=studies, study=study or session.study_name, track=track, tracking_uri=tracking_uri)
    console = _console()
    outcome = run(session, where, trials=trials, console=console)
    show_next(console, outcome, question=experiment, where=where, trials=trials)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.answer.keeps_sla:
        raise typer.Exit(EXIT_SLA_MISSED)


@app.command()
def simulate(
    experiment: ExperimentArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, such as layout.tensor=4; may be given many times.",
        ),
    ] = None,
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

    session = Session(question=read_experiment(find_experiment(experiment)))
    scenario = session.scenario
    config = session.changed(settings or [])
    console = _console()
    show_question(console, scenario)
    try:
        level = session.measure(config, load)
    except (InfeasibleError, RunFailedError) as error:
        raise InputError(f"{config} cannot be served: {error}") from None
    show_measurement(console, scenario, config, level)
    if not scenario.sla.kept_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


@app.command()
def validate(
    systems: Annotated[
        list[str] | None,
        typer.Option("--system", help="Only rows of this system; may be given many times. By default Blackwell."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Only rows of this engine.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows to draw; by default all of them.")] = None,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Report to write: .md or .html.")] = None,
) -> None:
    """Compare predictions with published measurements, ours and AIConfigurator's on the same rows.

    All rows take about a minute.

        servetune validate --system b200 --engine trtllm --rows 100 -o report.html
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from runners.recorded import recordings
    from tuner.fidelity import Fidelity, progress, show, write
    from tuner.validate import compare, sample, select

    known = recordings()
    drawn = sample(select(known.clean, systems, engine), rows, seed)
    console = _console()
    with progress(console, len(drawn)) as done:
        compared = list(compare(drawn, done=done))
    command = " ".join(["servetune validate", *_given(systems, engine, rows, seed)])
    report = Fidelity(compared=compared, recordings=known, command=command)
    show(console, report)
    if output is not None:
        write(report, output)
        console.print(f"Written to {output}", markup=False)


def _given(systems: list[str] | None, engine: str | None, rows: int | None, seed: int) -> list[str]:
    options = [f"--system {name}" for name in systems or ()]
    options += [f"--engine {engine}"] if engine else []
    return options + ([f"--rows {rows} --seed {seed}"] if rows else [])


@app.command(name="list")
def list_known(
    what: Annotated[str, typer.Argument(metavar="models|systems|engines|experiments|recordings")],
) -> None:
    """Show what is known: models, systems, engines, experiments, or recordings that can be replayed."""
    from tuner.catalogue import CATALOGUES

    if what not in CATALOGUES:
        raise UnknownNameError("list", what, CATALOGUES)
    _console().print(CATALOGUES[what]())


def _console() -> "Console":
    from rich.console import Console

    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fixed else PIPE_WIDTH)

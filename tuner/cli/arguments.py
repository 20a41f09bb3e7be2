"""What several commands share: arguments, exit codes and the console."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SLA_MISSED = 3
EXIT_INTERRUPTED = 130

PIPE_WIDTH = 200
"""Columns of output that goes to no terminal: names stay whole for grep."""

STUDIES = Path("studies")

Experiment = Annotated[
    str,
    typer.Argument(metavar="EXPERIMENT", help="A YAML file, or the name of one that ships with servetune."),
]
Runner = Annotated[str | None, typer.Option(help="Who answers, whatever the experiment says: see `runner` there.")]
Studies = Annotated[Path, typer.Option(help="Folder of the study files.")]
Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study's name or file, or an experiment's name where it has one study."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for scripts.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow store; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, such as layout.tensor=4; may be given many times.",
    ),
]


def console() -> "Console":
    from rich.console import Console

    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fixed else PIPE_WIDTH)


@contextmanager
def store_failures() -> Iterator[None]:
    """An MLflow store that does not answer, or is held by another, ends the command on one line, with exit code 1."""
    from tuner.retune.lease import TakenError
    from tuner.retune.registry import StoreError

    try:
        yield
    except (StoreError, TakenError) as error:
        typer.echo(f"servetune: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None

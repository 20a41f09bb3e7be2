"""What several commands share: arguments, exit codes and the console."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError
from tuner.cli import completion

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
    typer.Argument(
        metavar="EXPERIMENT",
        help="A YAML file, or the name of one that ships with servetune.",
        autocompletion=completion.experiments,
    ),
]
Runner = Annotated[
    str | None,
    typer.Option(
        help="Who answers, whatever the experiment says: see `runner` there.", autocompletion=completion.runners
    ),
]
Studies = Annotated[Path, typer.Option(help="Folder of the study files.")]
Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study's name or file, or an experiment's name where it has one study.",
        autocompletion=completion.studies,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else, for scripts; exit codes stay the same.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only the result.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Also what happens on the way.")]
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
Load = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=1_000_000,
        help="Load (requests in flight, requests/s or pace); by default the highest that meets the SLA.",
    ),
]


def console(*, quiet: bool = False, errors: bool = False) -> "Console":
    """Where a command talks to people; `quiet` says nothing, `errors` is the error stream.

    Colours are off where it is no terminal, and with NO_COLOR.
    """
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    fixed = (stream is not None and stream.isatty()) or "COLUMNS" in os.environ  # None where it was closed
    return Console(highlight=False, width=None if fixed else PIPE_WIDTH, quiet=quiet, stderr=errors)


def print_json(document: object) -> None:
    """One document on standard output, alone; infinities, which JSON does not know, as null."""
    typer.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False, default=str, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_voice(*, quiet: bool, verbose: bool) -> None:
    """Raises InputError for both at once."""
    if quiet and verbose:
        raise InputError("give --quiet or --verbose, not both")


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

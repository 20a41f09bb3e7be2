"""servetune doctor: what this machine can do."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import completion
from tuner.cli.arguments import EXIT_FAILED, STUDIES, Json, Quiet, Studies, TrackingUri, console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from tuner.doctor import Check, Possible


Named = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[EXPERIMENT]...",
        help="Experiments to look at; by default all that ship.",
        autocompletion=completion.experiments,
    ),
]
Pythons = Annotated[
    list[Path] | None,
    typer.Option("--python", metavar="PATH", help="Also look for engines in this Python's environment."),
]


def doctor(
    experiments: Named = None,
    pythons: Pythons = None,
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check GPUs, engines, kernel data, ports, disk and the MLflow store, and what each experiment could run on here.

    Exit code 0 when searches work here, 1 when something that they need does not.

        servetune doctor gpt-oss-120b-b200-chat --python /opt/vllm/bin/python
    """
    from tuner.doctor import Doctor
    from tuner.scenario.experiment.files import find_experiment, list_experiments
    from tuner.scenario.experiment.reading import read_experiment

    patient = Doctor(
        pythons=(Path(sys.executable), *(pythons or ())),
        studies=studies,
        tracking_uri=tracking_uri,
    )
    asked = [read_experiment(find_experiment(name)) for name in experiments or list_experiments()]
    checks = patient.checks()
    possible = [patient.possible(experiment) for experiment in asked]
    failed = any(check.fails for check in checks)
    if as_json:
        said = {"works": not failed, "checks": list(map(asdict, checks)), "experiments": list(map(asdict, possible))}
        print_json(said)
    elif quiet:
        for check in checks:
            if check.fails:
                typer.echo(f"{check.name}: {check.found}")
    else:
        out = console()
        out.print(_check_table(checks))
        out.print(_experiment_table(possible))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _check_table(checks: "list[Check]") -> "Table":
    from rich.text import Text

    table = _table("This machine", "", "state", "found")
    colours = {"ok": "green", "absent": "yellow", "broken": "red"}
    for check in checks:
        state = Text(check.state + (" (needed)" if check.fails else ""), style=colours[check.state])
        table.add_row(check.name, state, Text(check.found))
    return table


def _experiment_table(possible: "list[Possible]") -> "Table":
    from rich.text import Text

    table = _table("Experiments", "experiment", "can be answered", "why not more")
    for one in possible:
        table.add_row(one.experiment, ", ".join(one.answers), Text(one.reason))
    return table

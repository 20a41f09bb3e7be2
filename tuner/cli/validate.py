"""servetune validate: predictions held against published measurements."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import completion
from tuner.cli.arguments import EXIT_INTERRUPTED, Json, Quiet, console, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from runners.recorded.recording import Recording
    from tuner.evidence.validate import Compared
    from tuner.show.fidelity.calibrated import Page
    from tuner.show.fidelity.page import Fidelity

QUIET_TABLES = 2
"""Coverage and errors; the others say where the errors lie."""


Systems = Annotated[
    list[str] | None,
    typer.Option("--system", help="Only rows of this system; may be given many times. By default Blackwell."),
]
Engine = Annotated[str | None, typer.Option(help="Only rows of this engine.", autocompletion=completion.engines)]
Half = Annotated[
    str | None,
    typer.Option(
        help="Only rows that the simulator was developed on (seen), or only those set aside before (held-out). By "
        "default both, scored apart."
    ),
]
RowCount = Annotated[int | None, typer.Option(min=1, help="Rows to draw; by default all of them.")]
Seed = Annotated[int, typer.Option(help="Which rows are drawn.")]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="Judge calibration: layouts predicted from measurements of others.")
]
Measurements = Annotated[int, typer.Option(min=1, max=24, help="With --calibrated: measurements for each calibration.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Report to write: .md (and pictures) or .html.")]


def validate(  # noqa: PLR0913, PLR0917 one for each option
    systems: Systems = None,
    engine: Engine = None,
    half: Half = None,
    rows: RowCount = None,
    seed: Seed = 0,
    calibrated: Calibrated = False,
    measurements: Measurements = 6,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with published measurements, ours and AIConfigurator's on the same rows.

    All rows take about a minute; Ctrl-C shows what was compared until then.

        servetune validate --system b200 --engine trtllm --rows 100 -o report.html

        servetune validate --calibrated

        servetune validate --rows 200 --json | jq .scores
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from runners.recorded.sample import recordings
    from tuner.evidence.calibrated import judge
    from tuner.evidence.validate import sample, select
    from tuner.show.fidelity import calibrated as calibration
    from tuner.show.fidelity import page as fidelity

    if output is not None:
        (calibration if calibrated else fidelity).check_kind(output)
    known = recordings()
    drawn = sample(select(known.clean, systems, engine, of_half=half), rows, seed)
    command = " ".join(["servetune validate", *_given(systems, engine, half, rows, seed)])
    bars = console(errors=as_json, quiet=quiet)
    if calibrated:
        command += f" --calibrated --measurements {measurements}"
        with bars.status("Calibrating on some layouts, predicting the others; all rows take minutes"):
            evidence = judge(drawn, measurements=measurements)
        page = calibration.Page(evidence=evidence, measurements=measurements, command=command)
        _tell(page, as_json=as_json, quiet=quiet)
        _end(len(evidence.judged), len(drawn) if evidence.interrupted else 0)
        _write(partial(calibration.write, page), output, as_json=as_json)
    else:
        compared = _compared(bars, drawn)
        report = fidelity.Fidelity(compared=compared, recordings=known, command=command)
        _tell(report, as_json=as_json, quiet=quiet)
        _end(len(compared), len(drawn))
        _write(partial(fidelity.write, report), output, as_json=as_json)


def _end(done: int, wanted: int) -> None:
    """Raises Exit where Ctrl-C ended it early."""
    if done < wanted:
        typer.echo(f"Interrupted after {done:,} of {wanted:,} rows; no file written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)


def _write(write: "Callable[[Path], None]", output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        write(output)
        typer.echo(f"Written to {output}", err=as_json)


def _compared(bars: "Console", rows: "Sequence[Recording]") -> "list[Compared]":
    """All rows, or those until Ctrl-C. Raises KeyboardInterrupt where there are none."""
    from tuner.evidence.validate import compare
    from tuner.show.progress import comparing

    compared: list[Compared] = []
    try:
        with comparing(bars, len(rows)) as done:
            compared.extend(compare(rows, done=done))
    except KeyboardInterrupt:
        if not compared:
            raise
    return compared


def _tell(page: "Fidelity | Page", *, as_json: bool, quiet: bool) -> None:
    from tuner.show.fidelity.tables import as_document, show

    if as_json:
        print_json(as_document(page))
    else:
        show(console(), page, most=QUIET_TABLES if quiet else None)


def _given(systems: list[str] | None, engine: str | None, half: str | None, rows: int | None, seed: int) -> list[str]:
    options = [f"--system {name}" for name in systems or ()]
    options += [f"--{name} {value}" for name, value in (("engine", engine), ("half", half)) if value]
    return options + ([f"--rows {rows} --seed {seed}"] if rows else [])

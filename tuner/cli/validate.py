"""servetune validate: predictions held against published measurements."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.arguments import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runners.recorded import Recording


def validate(
    systems: Annotated[
        list[str] | None,
        typer.Option("--system", help="Only rows of this system; may be given many times. By default Blackwell."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Only rows of this engine.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows to draw; by default all of them.")] = None,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Judge calibration: layouts predicted from measurements of others.")
    ] = False,
    measurements: Annotated[
        int, typer.Option(min=1, max=24, help="With --calibrated: measurements for each calibration.")
    ] = 6,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Report to write: .md (and pictures) or .html.")
    ] = None,
) -> None:
    """Compare predictions with published measurements, ours and AIConfigurator's on the same rows.

    All rows take about a minute.

        servetune validate --system b200 --engine trtllm --rows 100 -o report.html

        servetune validate --calibrated
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from runners.recorded import recordings
    from tuner.fidelity import Fidelity, check_kind, progress, show, write
    from tuner.validate import compare, sample, select

    if output is not None:
        check_kind(output)
    known = recordings()
    drawn = sample(select(known.clean, systems, engine), rows, seed)
    out = console()
    command = " ".join(["servetune validate", *_given(systems, engine, rows, seed)])
    if calibrated:
        _judge(drawn, measurements, f"{command} --calibrated --measurements {measurements}", output)
        return
    with progress(out, len(drawn)) as done:
        compared = list(compare(drawn, done=done))
    report = Fidelity(compared=compared, recordings=known, command=command)
    show(out, report)
    if output is not None:
        write(report, output)
        out.print(f"Written to {output}", markup=False)


def _judge(rows: "Sequence[Recording]", measurements: int, command: str, output: Path | None) -> None:
    """What calibration is worth on these rows."""
    from tuner.calibrated import Page, check_kind, judge, show, write

    if output is not None:
        check_kind(output)
    out = console()
    with out.status("Calibrating on some layouts, predicting the others"):
        evidence = judge(rows, measurements=measurements)
    page = Page(evidence=evidence, measurements=measurements, command=command)
    show(out, page)
    if output is not None:
        write(page, output)
        out.print(f"Written to {output}", markup=False)


def _given(systems: list[str] | None, engine: str | None, rows: int | None, seed: int) -> list[str]:
    options = [f"--system {name}" for name in systems or ()]
    options += [f"--engine {engine}"] if engine else []
    return options + ([f"--rows {rows} --seed {seed}"] if rows else [])

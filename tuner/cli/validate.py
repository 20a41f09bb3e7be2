"""servetune validate: predictions held against published measurements."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import console


def validate(
    systems: Annotated[
        list[str] | None,
        typer.Option("--system", help="Only rows of this system; may be given many times. By default Blackwell."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Only rows of this engine.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows to draw; by default all of them.")] = None,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Report to write: .md (and pictures) or .html.")
    ] = None,
) -> None:
    """Compare predictions with published measurements, ours and AIConfigurator's on the same rows.

    All rows take about a minute.

        servetune validate --system b200 --engine trtllm --rows 100 -o report.html
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
    with progress(out, len(drawn)) as done:
        compared = list(compare(drawn, done=done))
    command = " ".join(["servetune validate", *_given(systems, engine, rows, seed)])
    report = Fidelity(compared=compared, recordings=known, command=command)
    show(out, report)
    if output is not None:
        write(report, output)
        out.print(f"Written to {output}", markup=False)


def _given(systems: list[str] | None, engine: str | None, rows: int | None, seed: int) -> list[str]:
    options = [f"--system {name}" for name in systems or ()]
    options += [f"--engine {engine}"] if engine else []
    return options + ([f"--rows {rows} --seed {seed}"] if rows else [])

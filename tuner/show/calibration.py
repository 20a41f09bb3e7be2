"""How a calibrated prediction is shown: the correction and its intervals, or the abstention."""

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runners.simulated.calibration import Abstained, Correction, Spread
from search_spaces.wording import plural
from tuner.scenario.amounts import milliseconds
from tuner.study.calibration import AppliedCalibration

SHARE = 0.8
"""Of measured latencies that an interval should hold."""


def show_calibration(console: Console, applied: AppliedCalibration) -> None:
    """The correction in a table, or the abstention on a line."""
    found = applied.found
    if isinstance(found, Abstained):
        console.print(f"Not calibrated, the prediction stands as it is: {found}", style="yellow", markup=False)
        return
    count = f"{found.measurements} of {plural(applied.measured, 'measurement')}"
    title = f"Calibrated by {count} in study {applied.study}: {found.domain}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("corrected")
    table.add_column("by", justify="right")
    for name, value in _corrections(found.correction):
        table.add_row(name, value)
    for name, spread in (("mean TTFT", applied.ttft), ("mean TPOT", applied.tpot)):
        if spread is not None:
            low, high = spread.interval(SHARE)
            table.add_row(f"{name}, {SHARE:.0%} interval", f"{milliseconds(low)} to {milliseconds(high)}")
    console.print(table)


def _corrections(correction: Correction) -> Iterator[tuple[str, str]]:
    yield "passes with prompts (prefill)", f"x {correction.prefill:.2f}"
    yield "decode steps", f"x {correction.decode:.2f}"
    yield "each iteration", f"{correction.iteration_s * 1000:+.2f} ms"
    yield "each request", f"{correction.request_s * 1000:+.1f} ms"


def calibration_document(applied: AppliedCalibration) -> dict[str, Any]:
    """The same as plain data."""
    found = applied.found
    if isinstance(found, Abstained):
        return {"study": applied.study, "abstained": found.reason}
    correction = found.correction
    return {
        "study": applied.study,
        "abstained": None,
        "domain": str(found.domain),
        "measurements": found.measurements,
        "measured": applied.measured,
        "prefill_factor": correction.prefill,
        "decode_factor": correction.decode,
        "iteration_ms": correction.iteration_s * 1000,
        "request_ms": correction.request_s * 1000,
        **{
            f"mean_{name}_ms_interval": _interval(spread)
            for name, spread in (("ttft", applied.ttft), ("tpot", applied.tpot))
            if spread is not None
        },
    }


def _interval(spread: Spread) -> dict[str, float]:
    low, high = spread.interval(SHARE)
    return {"probability": SHARE, "low": low * 1000, "high": high * 1000}

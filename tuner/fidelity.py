"""Fidelity: a comparison with measured rows as a page, in Markdown or HTML."""

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runners.recorded import Recordings
from search_spaces.errors import InputError
from tuner.validate import (
    FIGURES,
    GROUPS,
    RUNNERS,
    Compared,
    Figure,
    coverage,
    grouped,
    rank_correlation,
    score,
)

PLOT = 320
MARGIN = 46
LOOK = (
    "body{font:15px system-ui;max-width:1100px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left}"
    "svg{margin:0 1em 1em 0}"
)
COLOURS = {"trtllm": "#2b7a0b", "sglang": "#1f5fbf", "vllm": "#c25b00"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text, the first row of them the heads."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Predictions next to what was measured, and what the measurements are. `command` made it."""

    compared: Sequence[Compared]
    recordings: Recordings
    command: str

    @property
    def tables(self) -> Iterator[Table]:
        yield self._coverage()
        both = [row for row in self.compared if all(name in row.predictions for name in RUNNERS)]
        yield self._errors("Errors on the rows that both predict", {"all": both})
        yield self._errors("Errors by mode, each on the rows that it predicts", grouped(self.compared, "mode"))
        for by in (name for name in GROUPS if name not in {"all", "mode"}):
            yield self._errors(f"Errors on the rows that both predict, by {by}", grouped(both, by))
        yield self._ranks()
        yield self._cleaning()

    def _coverage(self) -> Table:
        rows = []
        for name in RUNNERS:
            count, missing = coverage(self.compared, name)
            reasons = ", ".join(f"{cause} {number}" for cause, number in missing.items())
            rows.append([name, f"{count:,} of {len(self.compared):,}", reasons or "-"])
        return Table(title="Rows predicted", heads=["", "rows", "not predicted, by reason"], rows=rows)

    def _errors(self, title: str, groups: Mapping[str, Sequence[Compared]]) -> Table:
        rows = []
        for label, group in groups.items():
            for name in RUNNERS:
                found = [score(group, name, figure) for figure in FIGURES]
                if found[0] is not None:
                    cells = (
                        f"{item.median_error:.0%} / {item.mean_error:.0%} / {item.bias:.2f}" for item in found if item
                    )
                    rows.append([label, name, f"{found[0].rows:,}", *cells])
        heads = ["", "", "rows", *FIGURES.values()]
        return Table(title=f"{title} (median error / mean error / bias)", heads=heads, rows=rows)

    def _ranks(self) -> Table:
        rows = []
        for name in RUNNERS:
            found = (rank_correlation(self.compared, name, figure) for figure in FIGURES)
            rows.append([name, *("-" if value is None else f"{value:.2f}" for value in found)])
        return Table(title="Rank correlation within scenarios", heads=["", *FIGURES.values()], rows=rows)

    def _cleaning(self) -> Table:
        found = self.recordings
        parts = (("dropped", found.dropped), ("corrected", found.changed), ("suspect", found.suspects))
        rows = [[what, rule, f"{count:,}"] for what, counts in parts for rule, count in counts.items()]
        rows.append(["clean", "all systems", f"{len(found.clean):,} of {found.total:,}"])
        return Table(title="How the rows were cleaned", heads=["", "rule", "rows"], rows=rows)

    @property
    def notes(self) -> tuple[str, ...]:
        measured = (
            "Measured: mean TTFT and TPOT of InferenceX and NVIDIA runs that ship with aiconfigurator_core 0.12.0 "
            "(systems/silicon_sample.csv, Apache-2.0). Throughput follows from them by Little's law, for predictions "
            "alike, and runs about 3 % high. $/M is in inverse proportion to it, so its bias is the reciprocal."
        )
        releases = (
            "The engines measured are older than the releases that the kernel times are of (TensorRT-LLM 1.3.0rc20, "
            "SGLang 0.5.14, vLLM 0.24.0): part of the error is the difference between them."
        )
        peer = (
            "Nothing was fitted to these rows. AIConfigurator is asked as its own `cli estimate` does, on aggregated "
            "rows only: its disaggregated estimate is not run."
        )
        return measured, releases, peer


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A bar on the terminal; what it yields is called once for each row."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Predicting measured runs", total=total)
        yield lambda: bar.advance(task)


def show(console: Console, report: Fidelity) -> None:
    """All tables, then how to read them."""
    for table in report.tables:
        shown = rich_table.Table(title=table.title, title_justify="left", box=SIMPLE_HEAD)
        for head in table.heads:
            shown.add_column(head, overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for note in report.notes:
        console.print(note, style="dim", markup=False)


def write(report: Fidelity, path: Path) -> None:
    """Raises InputError for a file that is neither .md nor .html, or cannot be written."""
    renderers = {".md": to_markdown, ".html": to_html}
    if path.suffix not in renderers:
        raise InputError(f"{path}: unknown kind of report {path.suffix!r}; valid: {', '.join(renderers)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(renderers[path.suffix](report), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from None


def to_markdown(report: Fidelity) -> str:
    lines = ["# Fidelity: predictions against measured runs", "", f"Made by `{report.command}`.", ""]
    for note in report.notes:
        lines += [note, ""]
    for table in report.tables:
        lines += [f"## {table.title}", "", _line(table.heads), _line(["---"] * len(table.heads))]
        lines += [_line(row) for row in table.rows]
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_html(report: Fidelity) -> str:
    """One page without scripts: the tables, and a scatter plot for each figure and runner."""
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Fidelity</title>",
        f"<style>{LOOK}</style>",
        "<h1>Predictions against measured runs</h1>",
        f"<p>Made by <code>{html.escape(report.command)}</code>.</p>",
        *(f"<p>{html.escape(note)}</p>" for note in report.notes),
    ]
    figures: tuple[Figure, ...] = ("ttft", "tpot")
    parts += [_scatter(report.compared, name, figure) for figure in figures for name in RUNNERS]
    for table in report.tables:
        parts.append(f"<h2>{html.escape(table.title)}</h2><table>{_html_row(table.heads, 'th')}")
        parts += [_html_row(row, "td") for row in table.rows]
        parts.append("</table>")
    return "\n".join(parts)


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _scatter(rows: Sequence[Compared], runner: str, figure: Figure) -> str:
    """Milliseconds, predicted over measured, both logarithmic; the line is perfect prediction."""
    points = [
        (row.row.ttft if figure == "ttft" else row.row.tpot, row.ratio(runner, figure), row)
        for row in rows
        if runner in row.predictions
    ]
    if not points:
        return ""
    values = [x for measured, ratio, _ in points for x in (measured, measured * ratio)]
    low, high = math.log10(min(values)), math.log10(max(values)) + 1e-9

    def place(seconds: float) -> float:
        return (math.log10(seconds) - low) / (high - low) * PLOT

    dots = "".join(
        f"<circle cx='{MARGIN + place(measured):.1f}' cy='{PLOT - place(measured * ratio) + 10:.1f}' r='2.5' "
        f"fill='{COLOURS[row.row.config.engine.name]}' fill-opacity='.55'>"
        f"<title>{html.escape(f'{row.row.model} {row.row.system} {row.row.config}')}</title></circle>"
        for measured, ratio, row in points
    )
    bottom = PLOT + 10
    size = PLOT + MARGIN + 14
    title = f"{FIGURES[figure]}, {runner}: ms predicted (up) over ms measured"
    ticks = "".join(
        f"<text x='{MARGIN + place(10.0**power):.0f}' y='{bottom + 14}' font-size='10'>{10 ** (power + 3):g}</text>"
        f"<text x='4' y='{bottom - place(10.0**power):.0f}' font-size='10'>{10 ** (power + 3):g}</text>"
        for power in range(math.ceil(low), math.floor(high) + 1)
    )
    return (
        f"<svg width='{size}' height='{size}' role='img'><title>{title}</title>"
        f"<line x1='{MARGIN}' y1='{bottom}' x2='{MARGIN + PLOT}' y2='10' stroke='#999'/>"
        f"<rect x='{MARGIN}' y='10' width='{PLOT}' height='{PLOT}' fill='none' stroke='#ccc'/>{dots}{ticks}"
        f"<text x='{MARGIN}' y='{bottom + 32}' font-size='12'>{title}</text></svg>"
    )

"""Tables of a comparison with measured rows, and how they stand on a terminal, in Markdown and as plain data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console

from tuner.evidence.validate import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text, the first row of them the heads."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Tables(Protocol):
    """What is shown of a comparison, and the command that made it."""

    @property
    def command(self) -> str: ...

    @property
    def tables(self) -> Iterator[Table]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def scores(self) -> Mapping[str, Mapping[str, Score]]: ...


def show(console: Console, report: Tables, *, most: int | None = None) -> None:
    """The first tables or all, then how to read them."""
    for table in islice(report.tables, most):
        shown = rich_table.Table(title=table.title, title_justify="left", box=SIMPLE_HEAD)
        for head in table.heads:
            shown.add_column(head, overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for note in report.notes if most is None else ():
        console.print(note, style="dim", markup=False)


def as_document(report: Tables) -> dict[str, Any]:
    """The comparison as plain data: errors as numbers, every table as text."""
    return {
        "command": report.command,
        "scores": {
            runner: {figure: asdict(found) for figure, found in scores.items()}
            for runner, scores in report.scores.items()
        },
        "tables": [
            {"title": table.title, "heads": list(table.heads), "rows": [list(row) for row in table.rows]}
            for table in report.tables
        ],
        "notes": list(report.notes),
    }


def markdown_rows(table: Table) -> list[str]:
    """The heads, a rule and the rows."""
    return [_markdown_row(cells) for cells in (table.heads, ["---"] * len(table.heads), *table.rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

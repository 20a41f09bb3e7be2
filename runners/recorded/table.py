"""A CSV file of published measurements: read with its columns checked, and cleaned by named rules."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from search_spaces.errors import InputError

Row = TypeVar("Row")


def lines_of(
    path: Path, columns: Sequence[str], what: str, *, note: str = ""
) -> Iterator[tuple[Mapping[str, str], str]]:
    """The cells of each line, and where it stands. Raises InputError for a file without the columns."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: {what} need the columns {', '.join(columns)}{note}; missing: {', '.join(missing)}"
                )
            for number, cells in enumerate(reader, start=2):
                yield cells, f"{path}: line {number}"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {what}: {error}") from None


def known(rows: Iterable[Row], rules: Mapping[str, Callable[[Row], bool]], dropped: Counter[str]) -> Iterator[Row]:
    """Rows that no rule drops; the others are counted by the first rule that does."""
    for row in rows:
        reason = next((name for name, holds in rules.items() if holds(row)), None)
        if reason is None:
            yield row
        else:
            dropped[reason] += 1

"""Options that engines are known to take, by release."""

from pathlib import Path

TABLES = Path(__file__).parent / "known_options"


def known(table: str) -> set[str]:
    lines = (TABLES / f"{table}.txt").read_text().splitlines()
    assert lines[0].startswith("# ")
    return set(lines[1:])

"""Ranges: between what a fact of one's own must lie, and what is said where it does not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from search_spaces.strict_yaml import shown

MOST = 1e18
"""More than any count, size or rate of a model or a machine: beyond it lie slips, and sums that overflow."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included."""

    low: float
    high: float = MOST

    def broken(self, key: str, value: float) -> Iterator[str]:
        """The law and what was found; nothing where it holds."""
        if not self.low <= value <= self.high:  # as NaN never does
            yield f"{key}: `{self.low:g} <= {key} <= {self.high:g}` must hold, but got {shown(value)}"


ANY = Range(0)
POSITIVE = Range(1)


def outside(part: object, ranges: Mapping[str, Range]) -> Iterator[str]:
    """The broken laws of a dataclass whose numbers have these ranges. None is no number."""
    for key, allowed in ranges.items():
        value = getattr(part, key)
        if value is not None:
            yield from allowed.broken(key, value)


def unless(holds: bool, key: str, law: str, found: object) -> Iterator[str]:
    """A law between facts, and what was found where it does not hold."""
    if not holds:
        yield f"{key}: {law}, but got {found}"

"""What a page is made of: sections of text, tables, charts and code, whatever it is rendered as."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text; the first cell of a row names it, the others are figures unless `words` lists their column."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plotly figure, with what it shows in words for those who do not see it."""

    caption: str
    summary: str
    figure: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to copy."""

    caption: str
    text: str


Block = Table | Chart | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A headed part of a page."""

    anchor: str
    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure that stands out."""

    label: str
    value: str
    note: str = ""

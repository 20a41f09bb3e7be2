"""Scatter plots of predicted over measured figures, as SVG without scripts."""

import html
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from search_spaces.config import EngineName
from search_spaces.engines.engine import engines
from tuner.evidence.validate import FIGURES, Compared, Figure, measured

PLOT = 320
MARGIN = 46
UNITS: Mapping[Figure, tuple[str, float]] = {
    "ttft": ("ms", 1000.0),
    "tpot": ("ms", 1000.0),
    "throughput": ("tokens/s", 1.0),
}
"""What is plotted, with the unit shown and how many of it are in ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dot:
    row: Compared
    measured: float
    predicted: float


def scatter(rows: Sequence[Compared], runner: str, figure: Figure, *, named: bool = True) -> str:
    """Both axes logarithmic; the line is perfect prediction. With `named` dots, each tells its run when pointed at.

    Empty where the runner predicts none of the rows.
    """
    unit, factor = UNITS[figure]
    dots = [
        _Dot(row=row, measured=factor * found, predicted=factor * found * row.ratio(runner, figure))
        for row in rows
        if runner in row.predictions and (found := measured(row.row, figure))
    ]
    if not dots:
        return ""
    values = [value for dot in dots for value in (dot.measured, dot.predicted)]
    low, high = math.log10(min(values)), math.log10(max(values)) + 1e-9

    def place(value: float) -> float:
        return (math.log10(value) - low) / (high - low) * PLOT

    title = f"{FIGURES[figure]}, {runner}: {unit} predicted (up) over {unit} measured"
    drawn = _circles(dots, place) if named else _paths(dots, place)
    ticks = _ticks([10.0**power for power in range(math.ceil(low), math.floor(high) + 1)], place)
    return _framed(html.escape(title), drawn + ticks)


def _framed(title: str, drawn: str) -> str:
    bottom, size = PLOT + 10, PLOT + MARGIN + 24
    legend = "".join(
        f"<text x='{MARGIN + 8}' y='{26 + 14 * at}' font-size='11' fill='{colour}'>{name}</text>"
        for at, (name, colour) in enumerate(_colours().items())
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{size}' height='{size}' role='img' font-family='sans-serif'>"
        f"<title>{title}</title><rect width='{size}' height='{size}' fill='#fff'/>"
        f"<line x1='{MARGIN}' y1='{bottom}' x2='{MARGIN + PLOT}' y2='10' stroke='#999'/>"
        f"<rect x='{MARGIN}' y='10' width='{PLOT}' height='{PLOT}' fill='none' stroke='#ccc'/>{drawn}{legend}"
        f"<text x='4' y='{bottom + 34}' font-size='12'>{title}</text></svg>\n"
    )


def _colours() -> Mapping[EngineName, str]:
    return {name: facts.colour for name, facts in engines().items()}


def _circles(dots: Iterable[_Dot], place: Callable[[float], float]) -> str:
    return "".join(
        f"<circle cx='{MARGIN + place(dot.measured):.1f}' cy='{PLOT - place(dot.predicted) + 10:.1f}' r='2.5' "
        f"fill='{_colours()[dot.row.row.config.engine.name]}' fill-opacity='.55'>"
        f"<title>{html.escape(f'{dot.row.row.model} {dot.row.row.system} {dot.row.row.config}')}</title></circle>"
        for dot in dots
    )


def _paths(dots: Iterable[_Dot], place: Callable[[float], float]) -> str:
    """One path for each engine, each dot a line of no length with round ends: a tenth of the bytes."""
    places: dict[EngineName, list[tuple[int, int]]] = defaultdict(list)
    for dot in dots:
        x, y = MARGIN + place(dot.measured), PLOT - place(dot.predicted) + 10
        places[dot.row.row.config.engine.name].append((round(x), round(y)))
    return "".join(
        f"<path d='{_steps(sorted(set(found)))}' fill='none' stroke='{_colours()[engine]}' stroke-opacity='.55' "
        "stroke-width='4' stroke-linecap='round'/>"
        for engine, found in sorted(places.items())
    )


def _steps(places: Sequence[tuple[int, int]]) -> str:
    first = "M{} {}h0".format(*places[0])
    return first + "".join(f"m{x - from_x} {y - from_y}h0" for (from_x, from_y), (x, y) in pairwise(places))


def _ticks(values: Iterable[float], place: Callable[[float], float]) -> str:
    bottom = PLOT + 10
    return "".join(
        f"<text x='{MARGIN + place(value):.0f}' y='{bottom + 14}' font-size='10'>{value:g}</text>"
        f"<text x='4' y='{bottom - place(value):.0f}' font-size='10'>{value:g}</text>"
        for value in values
    )

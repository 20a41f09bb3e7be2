"""The table of knobs: for `servetune list knobs`, and as the page docs/reference/knobs.md."""

from collections.abc import Iterator
from typing import Any

from search_spaces.engines.engine import engines
from search_spaces.knob import Knob
from search_spaces.knobs import KNOBS

HEADS = ("knob", "what it is", "searched", "may be listed in `space:`", "priced by", "taken by")

OPENING = """\
# Knobs

Every setting of a deployment, by the one name that it has: in an experiment's `space:`, in `--set`, as a parameter of
an Optuna trial or an MLflow run, in JSON and in reports. `servetune list knobs` shows them, too.

- Where `space:` lists no values, those in the column *searched* are. `prefill.max_sequences` is then as many as decode,
  as far as a pass holds them.
- A draft length is drawn only where something drafts: `speculation.draft_length: [1, 2]` leaves `none` possible, and a
  method only where its acceptance was measured at one of these. Knobs of prefill workers are drawn in the disaggregated
  mode only.
- What the runner does not price is not searched; real engines (`runner: served`) search all that they take. An engine
  that does not take a knob keeps its own way, and is no choice where another is listed.
"""


def knob_rows() -> Iterator[tuple[str, ...]]:
    """A row of HEADS for each knob."""
    for knob in KNOBS.values():
        priced = ", ".join(knob.priced_by) or "real engines only"
        yield knob.name, knob.doc, knob.searched, _listable(knob), priced, _taken(knob)


def knob_facts() -> Iterator[dict[str, Any]]:
    """As `knob_rows`, for programs."""
    for knob in KNOBS.values():
        yield {
            "name": knob.name,
            "doc": knob.doc,
            "scale": knob.scale,
            "searched": knob.searched,
            "any_integer": knob.any_integer,
            "names": list(knob.names),
            "priced_by": list(knob.priced_by),
            "engines": [name for name, facts in engines().items() if facts.takes_knob(knob.name)],
        }


def knob_page() -> str:
    """The page of the documentation, as Markdown."""
    lines = [HEADS, ("---",) * len(HEADS), *knob_rows()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{OPENING}\n{table}\n"


def _listable(knob: Knob) -> str:
    if knob.follows:
        return f"{'with `runner: recorded`' if knob.is_listable else 'no'}: {knob.follows}"
    return f"any integer from {knob.least} on" if knob.any_integer else "some of these"


def _taken(knob: Knob) -> str:
    names = [name for name, facts in engines().items() if facts.takes_knob(knob.name)]
    return "all" if len(names) == len(engines()) else ", ".join(names)

"""Recorded rows that were set aside before the simulator's physics was worked on, so that they can judge it."""

import datetime as dt

from runners.recorded.recording import Recording
from search_spaces.engines.engine import facts_of

LATE_FROM = dt.date(2026, 4, 1)
"""The last quarter of the recordings."""

HALVES = HELD_OUT, SEEN = "held-out", "seen"


def held_out(row: Recording) -> bool:
    """Whether a row is of its engine's held-out model (`published.held_out` in its facts), or of the last quarter."""
    if row.date is not None and row.date >= LATE_FROM:
        return True
    model, *weights = facts_of(row.config.engine).published.held_out or ("",)
    return row.model == model and (not weights or row.config.precision.weights in weights)


def half(row: Recording) -> str:
    """HELD_OUT, or SEEN for what work on the simulator may look at."""
    return HELD_OUT if held_out(row) else SEEN

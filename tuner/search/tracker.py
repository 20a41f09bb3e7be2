"""Tracker: the seam behind which finished trials are kept for people to compare."""

from typing import Protocol

from tuner.search.trial import Trial


class Tracker(Protocol):
    """Where finished trials are kept for people to compare."""

    def log(self, trial: Trial) -> None:
        """Keep a finished trial, once by its number; takes under a millisecond and never stops a search."""


class Untracked:
    """Keeps nothing."""

    def log(self, trial: Trial) -> None:
        """Nothing."""

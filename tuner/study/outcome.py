"""Outcome: what a search came to, and where it left what."""

from dataclasses import dataclass
from pathlib import Path

from tuner.study.answer import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a search keeps its study and its MLflow runs (nowhere when `track` is False)."""

    studies: Path
    study: str
    track: bool = True
    tracking_uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search came to, by how many new trials.

    `broken` names the failure of the environment that ended it. `problem` says what of it is not in MLflow, and why.
    """

    answer: Answer
    interrupted: bool
    tried: int
    broken: str
    problem: str | None

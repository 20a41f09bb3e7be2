"""What a study asks: kept with it as JSON, and held against what is asked now."""

import glob
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.search.session import Session
from tuner.study.migration import HEAD, SUFFIX, asked_in, is_earlier


def differing(kept: Mapping[str, Any], asked: Mapping[str, Any], *, newer: bool = True) -> list[str]:
    """Dotted keys that are asked otherwise; without `newer`, not those that were not known when the study was asked.

    The order in which a space lists values means nothing.
    """
    return sorted(_differing(kept, asked, "", newer=newer))


def _differing(kept: object, asked: object, key: str, *, newer: bool) -> Iterator[str]:
    if isinstance(kept, Mapping) and isinstance(asked, Mapping):
        for name in {*kept, *(asked if newer else ())}:
            below = f"{key}.{name}" if key else str(name)
            yield from _differing(kept.get(name), asked.get(name), below, newer=newer)
    elif _unordered(kept, key) != _unordered(asked, key):
        yield key


def _unordered(value: object, key: str) -> object:
    return sorted(value, key=str) if key.startswith("space.") and isinstance(value, list) else value


def study_of(studies: Path, session: Session) -> str:
    """The name of the study that goes on with a session.

    That is its own, or one that was written with earlier names of the same: its name tells of what was asked in those.
    """
    own = session.study_name
    if (studies / f"{own}{SUFFIX}").exists():
        return own
    same = (path.stem for path, asked in _others(studies, session) if not differing(asked, session.asked))
    return next(same, own)


def asked_otherwise(studies: Path, session: Session) -> Iterator[str]:
    """What keeps studies with earlier names from being gone on with by a session that begins one of its own."""
    if (studies / f"{session.study_name}{SUFFIX}").exists():
        return
    for path, asked in _others(studies, session, earlier_only=True):
        if keys := differing(asked, session.asked):
            yield f"{path} asks otherwise ({', '.join(keys)}), so another study begins."


def _others(studies: Path, session: Session, *, earlier_only: bool = False) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The experiment's other studies, and what they ask; or those only that are written with earlier names.

    What is no readable study is passed over.
    """
    for path in sorted(studies.glob(f"{glob.escape(session.experiment.name)}-????????{SUFFIX}")):
        head: list[bytes] = []
        asked = None
        with suppress(ValueError, LookupError, TypeError, AttributeError, OSError), path.open("rb") as file:
            head = [line for line, _ in zip(file, range(HEAD), strict=False)]
            asked = asked_in(head)
        if asked is not None and (is_earlier(head) or not earlier_only):
            yield path, asked

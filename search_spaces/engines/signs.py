"""Signs: what an engine's log says of the cause of a failure, in words that all engines share or that are its own."""

import re
from dataclasses import dataclass
from functools import cache

from search_spaces.config import Engine
from search_spaces.engines.engine import facts_of
from search_spaces.tables import read_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Words of a log that name a cause."""

    cause: str
    words: re.Pattern[str]


NEVER = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What to look for in the log of one engine.

    `causes` in the order in which they win. A line of the engine's own process matches `core`; `pointers` only point
    to the error before them, and `dead` says that this process has failed.
    """

    causes: tuple[Sign, ...]
    core: re.Pattern[str]
    pointers: re.Pattern[str]
    dead: re.Pattern[str]


@cache
def signs_of(engine: Engine) -> Signs:
    """An engine's own words stand before those that all share; its own causes before all others."""
    facts = facts_of(engine)
    shared: dict[str, list[str]] = read_yaml("search_spaces.engines", "failures.yaml")
    own = {cause: list(words) for cause, words in facts.failures.items()}
    if facts.packages.module:
        own.setdefault("engine not installed", []).append(rf"No module named '?{re.escape(facts.packages.module)}'?$")
    causes = [*(cause for cause in own if cause not in shared), *shared]
    return Signs(
        causes=tuple(
            Sign(cause=cause, words=_any_of((*own.get(cause, ()), *shared.get(cause, ())))) for cause in causes
        ),
        core=_any_of((facts.log.core,) if facts.log.core else ()),
        pointers=_any_of(facts.log.pointers),
        dead=_any_of(facts.log.dead),
    )


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{word})" for word in words)) if words else NEVER

"""What changed since a champion was promoted: the experiment, its price, the machine, the settings there are."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.config import Value
from tuner.retune.champion import Champion, price_in_force
from tuner.retune.machine import machine
from tuner.search.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not as it was; None where it was not, or is no longer, there."""

    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.what}: {_shown(self.before)} -> {_shown(self.after)}"


def changes(champion: Champion, session: Session) -> list[Change]:
    """The experiment as it is asked now against the one that the champion answered, price and machine included."""
    before, after = _flat(champion.asked), _flat(session.asked)
    found = _differences(before, after)
    if session.is_real and champion.machine:
        found += _differences(champion.machine, machine())
    return found + _price(champion, session)


def space_changes(before: Mapping[str, Sequence[Value]], after: Mapping[str, Sequence[Value]]) -> list[Change]:
    """Settings and values that entered or left the space."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            found.append(Change(what=f"setting {name}", before=old, after=new))
            continue
        added = [value for value in new if value not in old]
        removed = [value for value in old if value not in new]
        if added or removed:
            found.append(Change(what=f"values of {name}", before=removed or None, after=added or None))
    return found


def _price(champion: Champion, session: Session) -> list[Change]:
    """The price that was in force, where the table has another now and the experiment does not say so itself."""
    now = price_in_force(session)
    return _differences({name: champion.price.get(name, value) for name, value in now.items()}, now)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    keys = list(dict.fromkeys([*before, *after]))
    return [
        Change(what=key, before=before.get(key), after=after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Dotted keys; lists are kept whole. Empty mappings are nothing."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (dt.date, str)):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str)

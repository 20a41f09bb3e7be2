"""A noun from a mapping that somebody wrote: strictly typed, with everything that is wrong in words."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from search_spaces.errors import UnknownNameError
from search_spaces.strict_yaml import SHOWN, Problems, printable, shown

Noun = TypeVar("Noun")

LONGEST_TEXT = 2000
MOST_ENTRIES = 500
DEEPEST = 8
LARGEST_NUMBER = 2**53

LAWS = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": "must be a list",
    "mapping_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "literal_error": "must be one of {expected}",
}
"""The law behind each kind of pydantic error; `but got ...` follows."""


def noun_of(kind: type[Noun], data: Mapping[Any, Any], problems: Problems) -> Noun | None:
    """The dataclass that a mapping describes; None where it is not as it must be, with what is wrong in `problems`.

    Texts are printable, numbers finite; sizes and depth are those of a file that a person writes.
    """
    problems.lines += list(_odd(data, (), 1))
    if problems.lines:
        return None
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    strict = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    # In a tuple, for a dataclass that stands alone takes no configuration; as JSON, for its lists are tuples here.
    adapter = TypeAdapter(tuple[kind], config=strict)  # type: ignore[valid-type]
    try:
        return adapter.validate_json(json.dumps([data]))[0]
    except ValidationError as error:
        for details in error.errors(include_url=False):
            line = _in_words(kind, details["loc"][1:], details)
            if line not in problems.lines:
                problems.lines.append(line)
        return None


def _odd(value: object, key: tuple[object, ...], depth: int) -> Iterator[str]:
    """What no fact is: dates, binary data, control characters, absurd sizes."""
    where = dotted(key) or "the file"
    if not isinstance(value, (dict, list)):
        law = _odd_scalar(value)
        if law:
            yield f"{where}: {law}"
    elif len(value) > MOST_ENTRIES:
        yield f"{where}: must have at most {MOST_ENTRIES} entries, but has {len(value)}"
    elif depth > DEEPEST:
        yield f"{where}: nested more than {DEEPEST} deep"
    elif isinstance(value, dict):
        yield from _odd_keys(where, value)
        for name, below in value.items():
            yield from _odd(below, (*key, str(name)[:SHOWN]), depth + 1)
    else:
        for index, below in enumerate(value):
            yield from _odd(below, (*key, index), depth + 1)


def _odd_scalar(value: object) -> str:
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            return f"must have at most {LONGEST_TEXT} characters, but has {len(value)}"
        return "" if value.isprintable() else f"must be printable text in one line, but got {shown(value)}"
    if isinstance(value, (int, float)):
        ordinary = math.isfinite(value) and abs(value) <= LARGEST_NUMBER
        return "" if ordinary else f"must be a finite number of ordinary size, but got {shown(value)}"
    return (
        "" if value is None else f"must be text, a number, a list or a mapping, but got {shown(str(value))}; quote it"
    )


def _odd_keys(where: str, mapping: Mapping[object, object]) -> Iterator[str]:
    for name in mapping:
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            yield f"{where}: keys must be text, but got {shown(name)}; quote it"
        elif isinstance(name, str) and not name.isprintable():
            yield f"{where}: keys must be printable text, but got {shown(name)}"
    if len({str(name) for name in mapping}) < len(mapping):
        yield f"{where}: a key is there as text and as a number"


def _in_words(kind: Any, loc: tuple[int | str, ...], details: Mapping[str, Any]) -> str:
    """One of pydantic's errors, by the key where it stands."""
    found = details["type"]
    if found == "unexpected_keyword_argument":
        known = [field.name for field in fields(_at(kind, loc[:-1]))]
        return _line(loc[:-1], str(UnknownNameError("key", loc[-1], known)))
    if found == "missing":
        return f"{dotted(loc)}: missing"
    if found == "value_error":
        return _line(loc, str(details["ctx"]["error"]))
    if loc and loc[-1] == "[key]":
        loc = loc[:-2]
    law = LAWS.get(found, details["msg"]).format(**details.get("ctx", {}))
    return _line(loc, f"{law}, but got {shown(details['input'])}")


def _line(loc: tuple[int | str, ...], text: str) -> str:
    return f"{dotted(loc)}: {text}" if loc else text


def _at(kind: Any, loc: tuple[int | str, ...]) -> Any:
    """The dataclass that describes what stands at a place."""
    for step in loc:
        if is_dataclass(kind):
            kind = get_type_hints(kind)[str(step)]
        elif get_origin(kind) is not None:
            kind = get_args(kind)[-1 if issubclass(get_origin(kind), Mapping) else 0]
    return kind


def dotted(loc: tuple[object, ...]) -> str:
    """`metrics.waiting`, `knobs.layout.tensor`, `command[2]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in loc)
    return "".join(steps).removeprefix(".")

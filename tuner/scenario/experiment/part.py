"""A part of an experiment file, as pydantic sees it: strict, with names that are known and completed by editors."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from search_spaces.errors import UnknownNameError
from search_spaces.strict_yaml import SHOWN, shown
from tuner.scenario.own_facts import is_file_name

MOST_TOKENS = 10_000_000
MOST_REQUESTS = 1_000_000


class Part(BaseModel):
    # A misspelt key that silently meant its default would make the answer to another experiment.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """What tells this part from the others that may stand in its place."""


def known(what: str, names: Callable[[], Iterable[str]], *, or_file: bool = False) -> BeforeValidator:
    """Accepts one of the names, or that of a file; the others learn what is valid, the nearest first."""

    def check(value: object) -> object:
        if or_file and isinstance(value, str) and is_file_name(value):
            return value
        if not isinstance(value, str):
            raise broken(f"must be one of {', '.join(names())}, but got {shown(value)}")
        if value not in (valid := list(names())):
            raise broken(str(UnknownNameError(what, value[:SHOWN], valid)))
        return value

    return BeforeValidator(check)


def broken(text: str) -> PydanticCustomError:
    return PydanticCustomError("broken_law", "{text}", {"text": text})


def names_or(names: Callable[[], Iterable[str]], pattern: str) -> Callable[[dict[str, Any]], None]:
    """Completion for editors, read when the schema is made: one of the names, or what a file of one's own is called."""

    def extend(schema: dict[str, Any]) -> None:
        schema["anyOf"] = [{"enum": list(names())}, {"pattern": pattern}]

    return extend


def properties(names: Callable[[], Iterable[str]]) -> Callable[[dict[str, Any]], None]:
    """Completion of a mapping's keys."""

    def extend(schema: dict[str, Any]) -> None:
        values = schema.pop("additionalProperties")
        schema.pop("propertyNames", None)
        schema |= {"properties": dict.fromkeys(names(), values), "additionalProperties": False}

    return extend


def keys(part: type[Part]) -> list[str]:
    return [field.alias or name for name, field in part.model_fields.items()]


def key_path(loc: Iterable[str | int]) -> str:
    """`workload.input_tokens.low`, `engines[0]`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += "." if path else ""
            path += part[:SHOWN] if part.isprintable() else repr(part[:SHOWN])
    return path

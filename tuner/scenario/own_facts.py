"""Models and systems of one's own: a YAML file with one entry in the form of models.yaml or systems.yaml."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from runners.simulated.architectures import differences
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.hardware.laws import broken_laws as system_laws
from search_spaces.hardware.system import System
from search_spaces.models.laws import broken_laws as model_laws
from search_spaces.models.model import Draft, Model
from search_spaces.strict_yaml import shown

Entry = TypeVar("Entry", Model, System)
SUFFIXES = (".yaml", ".yml")


def _laws_of_model(model: Model) -> list[str]:
    """What cannot be or, where all can, in what the model is not the one whose kernel times it takes."""
    return [*model_laws(model)] or [*differences(model)]


LAWS: Mapping[type[Model] | type[System], Callable[[Any], Iterable[str]]] = {
    Model: _laws_of_model,
    System: system_laws,
}


def is_file_name(name: str) -> bool:
    """Whether a model or a system is named by the file that describes it."""
    return name.endswith(SUFFIXES)


def entry_of(kind: type[Entry], path: Path, data: Mapping[Any, Any]) -> Entry:
    """The only entry of a file that has been read. Raises InputError with everything that is wrong with it."""
    if len(data) != 1:
        raise InputError(
            f"{path}: must have one entry, by the name of the {kind.__name__.lower()}, but has {len(data)}"
        )
    name, facts = next(iter(data.items()))
    if not isinstance(name, str) or not isinstance(facts, dict):
        raise InputError(f"{path}: must be a name with a mapping below it, but got {type(facts).__name__} at {name!r}")
    problems = list(_problems(kind, facts, f"{path}: {name}", given={"name"}))
    if problems:
        raise InputError("\n".join(problems))
    entry = _typed(kind, f"{path}: {name}", {"name": name, **facts})
    problems = [f"{path}: {name}.{law}" for law in LAWS[kind](entry)]
    if problems:
        raise InputError("\n".join(problems))
    return entry


def _typed(kind: type[Entry], where: str, facts: Mapping[str, Any]) -> Entry:
    """Strictly: as JSON has them, a list is a tuple, and neither text nor a truth value a number."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(facts, default=str), strict=True)
    except ValidationError as error:
        lines = (
            f"{where}.{_key(found['loc'])}: {found['msg']}, but got {shown(found['input'])}"
            for found in error.errors(include_url=False)
        )
        raise InputError("\n".join(lines)) from None


def _problems(kind: Any, facts: Mapping[Any, Any], where: str, *, given: set[str]) -> list[str]:
    """Keys that are unknown or missing, in this mapping and those below it."""
    known = {field.name: field for field in fields(kind) if field.name not in given}
    problems = [f"{where}: {UnknownNameError('key', key, known)}" for key in facts if key not in known]
    for name, field in known.items():
        if name not in facts and field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{where}: {name}: missing")
    hints = get_type_hints(kind)
    for name, value in facts.items():
        below = Draft if name == "drafts" else hints.get(name)
        if not is_dataclass(below) or not isinstance(value, dict):
            continue
        inner = value if name == "drafts" else {"": value}
        for key, entry in inner.items():
            if isinstance(entry, dict):
                place = f"{where}.{name}" + (f".{key}" if key else "")
                problems += _problems(below, entry, place, given=set())
    return problems


def _key(loc: tuple[str | int, ...]) -> str:
    return ".".join(map(str, loc))

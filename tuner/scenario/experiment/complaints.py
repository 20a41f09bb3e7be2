"""What pydantic found in an experiment file, in our words: the key, the law, and the value found."""

from pydantic_core import ErrorDetails

from search_spaces.errors import UnknownNameError, nearest_first
from search_spaces.strict_yaml import SHOWN, shown
from tuner.scenario.experiment.budget import Budget, Retune
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.part import Part, key_path, keys
from tuner.scenario.experiment.price import ListPrice, OwnPrice
from tuner.scenario.experiment.sampler import Sampler
from tuner.scenario.experiment.serve import Serve
from tuner.scenario.experiment.workload import LengthRange, RecordedWorkload, SyntheticWorkload

_PARTS: dict[tuple[str | int, ...], type[Part]] = {
    (): Experiment,
    ("workload", "<synthetic>"): SyntheticWorkload,
    ("workload", "<recorded>"): RecordedWorkload,
    ("workload", "<synthetic>", "input_tokens"): LengthRange,
    ("workload", "<synthetic>", "output_tokens"): LengthRange,
    ("price", "<list>"): ListPrice,
    ("price", "<own>"): OwnPrice,
    ("sampler",): Sampler,
    ("budget",): Budget,
    ("retune",): Retune,
    ("serve",): Serve,
}
_LAWS = {
    "greater_than": "`{key} > {gt:g}` must hold",
    "greater_than_equal": "`{key} >= {ge:g}` must hold",
    "less_than_equal": "`{key} <= {le}` must hold",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "string_unicode": "must be Unicode text",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "date_type": "must be a date such as 2026-07-31",
    "invalid_key": "keys must be text",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
}
"""The law behind each kind of pydantic error; `but got ...` follows."""


def problem(details: ErrorDetails) -> str:
    loc, kind, found = details["loc"], details["type"], details["input"]
    in_words = {"missing": _missing, "extra_forbidden": _unknown_key}
    if kind in in_words:
        text = in_words[kind](loc)
    elif kind == "broken_law":
        text = details["msg"]
    else:
        law = _LAWS.get(kind, details["msg"]).format(key=key_path(loc[-1:]), **details.get("ctx", {}))
        text = f"{law}, but got {shown(found)}"
    return f"{key_path(_without_tags(loc))}: {text}"


def _missing(loc: tuple[str | int, ...]) -> str:
    for name, field in _PARTS[loc[:-1]].model_fields.items():
        if loc[-1] in (name, field.alias):
            return f"missing ({field.description})"
    raise AssertionError(loc)


def _unknown_key(loc: tuple[str | int, ...]) -> str:
    part, key = _PARTS[loc[:-1]], str(loc[-1])[:SHOWN]
    for place, other in _PARTS.items():
        if place[:-1] == loc[:-2] and other.kind != part.kind and key in keys(other):
            valid = ", ".join(nearest_first(key, keys(part)))
            return f"does not go with `{part.kind}`; valid: {valid}"
    return str(UnknownNameError("key", key, keys(part)))


def _without_tags(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A location in the file: without the marks of pydantic's unions and mapping keys."""
    if loc[:1] in (("workload",), ("price",)):
        loc = loc[:1] + loc[2:]
    return loc[:-1] if loc[-1:] == ("[key]",) else loc

"""Settings from the command line: `layout.tensor=4` as a change of a ServingConfig."""

from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

from search_spaces.config import KNOBS, ServingConfig, flatten, unflatten
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.space import Value
from search_spaces.strict_yaml import SHOWN, shown


def parse_settings(settings: Iterable[str], base: ServingConfig) -> ServingConfig:
    """`base` with settings such as `layout.tensor=4` changed; `disaggregation=none` makes it aggregated.

    Raises InputError with every setting that is unknown or has a value it cannot take, one a line, or with
    the law that the settings break together.
    """
    values = flatten(base)
    problems: list[str] = []
    for setting in settings:
        try:
            _apply(setting, values)
        except InputError as error:
            problems.append(f"{shown(setting)}: {error}")
    if problems:
        raise InputError("\n".join(problems))
    if values["engine.name"] != base.engine.name and values["engine.version"] == base.engine.version:
        values["engine.version"] = find_engine(values["engine.name"]).version
    return _checked(values, base)


def _apply(setting: str, values: dict[str, Any]) -> None:
    knob, equals, text = setting.partition("=")
    if not equals:
        raise InputError("a setting must read KEY=VALUE, such as layout.tensor=4")
    if knob == "disaggregation" and text == "none":
        for prefill_knob in [name for name in values if name.startswith("disaggregation.")]:
            del values[prefill_knob]
        return
    if knob not in KNOBS:
        raise UnknownNameError("setting", knob[:SHOWN], (*KNOBS, "disaggregation"))
    values[knob] = _setting_value(knob, text)


def _setting_value(knob: str, text: str) -> Value:
    kind = _knob_type(knob)
    if kind is int:
        return _whole_number(text)
    if choices := get_args(kind):
        if text not in choices:
            raise UnknownNameError(knob, text[:SHOWN], choices)
        return text
    return text


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"must be a whole number, but got {shown(text)}") from None


def _knob_type(knob: str) -> Any:
    """int, str, or a Literal of names."""
    kind: Any = ServingConfig
    for name in knob.split("."):
        hint = get_type_hints(kind)[name]
        parts = [part for part in get_args(hint) if isinstance(part, type) and part is not type(None)]
        kind = parts[0] if parts else hint
    return kind


def _checked(values: dict[str, Any], base: ServingConfig) -> ServingConfig:
    try:
        config = unflatten(values)
    except ValueError as error:
        raise InputError(str(error)) from None
    if config.engine != base.engine:
        find_engine(f"{config.engine.name}@{config.engine.version}")
    return config

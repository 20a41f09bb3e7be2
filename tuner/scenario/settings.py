"""Settings from the command line: `layout.tensor=4` as a change of a ServingConfig."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from search_spaces.config import ServingConfig, Value
from search_spaces.engines.engine import find_engine
from search_spaces.engines.folders import engine_names
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.knobs import PREFILL, find_knob, flatten, unflatten
from search_spaces.strict_yaml import SHOWN, shown


def parse_settings(settings: Iterable[str], base: ServingConfig) -> ServingConfig:
    """`base` with settings such as `layout.tensor=4` changed; `mode=aggregated` takes its prefill workers away.

    A setting of prefill workers brings some, and `speculation.method=none` needs no draft length. Raises InputError
    with every setting that is unknown or has a value it cannot take, one a line, or with the law that the settings
    break together.
    """
    given: dict[str, Value] = {}
    problems: list[str] = []
    for setting in settings:
        try:
            name, value = _parsed(setting, base)
            given[name] = value
        except InputError as error:
            problems.append(f"{shown(setting)}: {error}")
    if problems:
        raise InputError("\n".join(problems))
    return _checked(_with_what_follows(given, flatten(base)), base)


def _parsed(setting: str, base: ServingConfig) -> tuple[str, Value]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise InputError("a setting must read KEY=VALUE, such as layout.tensor=4")
    knob = find_knob(name[:SHOWN])
    value = knob.parsed(text[:SHOWN])
    if knob.name == "engine" and value not in (known := (*engine_names(), base.engine.name)):
        raise UnknownNameError("engine", value, known)
    return knob.name, value


def _with_what_follows(given: dict[str, Value], base: dict[str, Value]) -> dict[str, Value]:
    """`base` with what is given, and with what is not given but has to change with it."""
    values = {**base, **given}
    if given.get("mode") == "aggregated":
        values = {name: value for name, value in values.items() if not name.startswith(PREFILL) or name in given}
    elif "mode" not in given and any(name.startswith(PREFILL) for name in given):
        values["mode"] = "disaggregated"
    if given.get("speculation.method") == "none" and "speculation.draft_length" not in given:
        values["speculation.draft_length"] = 0
    if values["engine"] != base["engine"] and "engine.version" not in given:
        values["engine.version"] = find_engine(str(values["engine"])).version
    return values


def _checked(values: dict[str, Any], base: ServingConfig) -> ServingConfig:
    try:
        config = unflatten(values)
    except ValueError as error:
        raise InputError(str(error)) from None
    if (config.engine.name, config.engine.version) == (base.engine.name, base.engine.version):
        return replace(config, engine=base.engine)  # one of the user's own has a folder beside
    find_engine(f"{config.engine.name}@{config.engine.version}")
    return config

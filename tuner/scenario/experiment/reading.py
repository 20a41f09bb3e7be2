"""Reads experiments/*.yaml strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.errors import UnknownNameError
from search_spaces.strict_yaml import Problems
from tuner.scenario.experiment.complaints import problem
from tuner.scenario.experiment.experiment import RUNNERS, Experiment
from tuner.scenario.experiment.files import read_mapping
from tuner.scenario.experiment.part import keys
from tuner.scenario.experiment.sampler import SAMPLERS


def read_experiment(path: Path, *, runner: str | None = None, sampler: str | None = None) -> Experiment:
    """The experiment in a file, put to another runner or searched by another sampler where one is named.

    Raises InputError with everything in the file that is not as it must be, one problem in each line.
    """
    data = read_mapping(path, keys(Experiment))
    if runner is not None:
        if runner not in RUNNERS:
            raise UnknownNameError("runner", runner, RUNNERS)
        data["runner"] = runner
    if sampler is not None:
        data["sampler"] = _named_sampler(sampler, data.get("sampler"))
    try:
        return Experiment.model_validate(data, context=_context(data, path))
    except ValidationError as error:
        problems = Problems(path)
        for details in error.errors(include_url=False):
            problems.lines.append(problem(details))
        raise problems.error() from None


def _named_sampler(name: str, given: object) -> object:
    """What the file says of a sampler, where it is this one; else its name alone. Raises UnknownNameError."""
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return given if isinstance(given, Mapping) and given.get("name") == name else {"name": name}


def _context(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What validators need to know: only a real engine may be of a release without kernel times."""
    return {"path": path, "any_release": data.get("runner") == "served"}


def as_written(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, by the keys of an experiment file."""
    data = {key: value for key, value in asked.items() if key in Experiment.model_fields}
    price = data.get("price")
    if isinstance(price, Mapping):
        data["price"] = {("list" if key == "price_list" else key): value for key, value in price.items()}
    return data


def rebuilt_experiment(journal: Path, asked: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment that a study kept as JSON, as if read from `path`.

    Raises InputError with everything that is not as it must be, one problem in each line.
    """
    try:
        return Experiment.model_validate_json(json.dumps(as_written(asked)), context=_context(asked, path))
    except ValidationError as error:
        problems = Problems(journal)
        for details in error.errors(include_url=False):
            problems.lines.append(problem(details))
        raise problems.error() from None

"""Installations: where the engine of each release is installed that a retune on real engines serves in turn."""

from pathlib import Path

from packaging.version import InvalidVersion, Version

from runners.served.deployment import Installation
from runners.served.installed import installed_engines
from search_spaces.config import Engine
from search_spaces.errors import InputError
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.serve import Serve


def installation_of(experiment: Experiment) -> Installation:
    return (experiment.serve or Serve()).installation(experiment.path.parent, devices=())


def installed_releases(experiment: Experiment, engine: Engine) -> tuple[str, ...]:
    """The releases of an engine in the environments that an experiment names; none of those that do not run."""
    found = []
    for python in installation_of(experiment).interpreters:
        try:
            found.append(_public(installed_engines(Path(python), [engine]).get(engine.name, "")))
        except InputError:
            continue
    return tuple(dict.fromkeys(filter(None, found)))


def check_both_installed(experiment: Experiment, before: Engine, after: Engine) -> None:
    """Raises InputError, which says what is missing and where to name it, unless both releases are installed."""
    if not experiment.is_served or before == after:
        return
    here = installation_of(experiment)
    if before.name == after.name and here.python_of(before) == here.python_of(after):
        raise InputError(
            f"{experiment.path}: a retune serves {before} and {after} in turn, so both have to be installed, each in "
            f"an environment of its own: serve: {{python: {{{_key(before)}: INTERPRETER, {_key(after)}: INTERPRETER}}}}"
        )
    for engine in (before, after):
        _check_installed(experiment, here, engine)


def _check_installed(experiment: Experiment, here: Installation, engine: Engine) -> None:
    python = here.python_of(engine)
    if python is None:
        named = ", ".join(here.pythons) or "none"
        raise InputError(
            f"{experiment.path}: serve.python names no interpreter for {_key(engine)} (it has {named}): install "
            f"{engine} in an environment of its own, and add it there"
        )
    try:
        found = installed_engines(Path(python), [engine]).get(engine.name)
    except InputError as error:
        raise InputError(f"{experiment.path}: {engine} is not installed: {error}") from None
    if found is None or _public(found) != _public(engine.version):
        there = f"{engine.name} {found}" if found else f"no {engine.name}"
        raise InputError(f"{experiment.path}: {engine} is not installed: serve.python has {there} at {python}")


def _key(engine: Engine) -> str:
    return f"{engine.name}@{engine.version}"


def _public(release: str) -> str:
    """Without what a build adds after `+`."""
    try:
        return Version(release).public
    except InvalidVersion:
        return release

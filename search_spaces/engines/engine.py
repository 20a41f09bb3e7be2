"""Which engines there are, what is known of each, and how they are named."""

import re
from functools import cache
from os.path import abspath
from pathlib import Path

from packaging.version import InvalidVersion, Version

from search_spaces.config import Engine, EngineName
from search_spaces.engines import reading
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.folders import FILE, engine_names, folder_of, is_folder, name_of
from search_spaces.errors import NO_KERNEL_DATA, InfeasibleError, InputError, UnknownNameError
from search_spaces.strict_yaml import shown

RELEASE = re.compile(r"\d+(\.\d+)+[\w.+-]*")


@cache
def engines() -> dict[EngineName, EngineFacts]:
    """Every engine that servetune comes with, by name."""
    return {name: _built_in(name) for name in engine_names()}


def facts_of(engine: Engine) -> EngineFacts:
    """Raises InputError for an engine that is unknown, or whose own folder is not as it must be."""
    return _built_in(engine.name) if engine.folder is None else _own(engine.folder)


@cache
def _built_in(name: EngineName) -> EngineFacts:
    if name not in engine_names():
        raise UnknownNameError("engine", name, engine_names())
    return _with_times(reading.built_in(name), Path(name, FILE))


@cache
def _own(folder: str) -> EngineFacts:
    facts = reading.own(Path(folder))
    if facts.name in engine_names():
        raise InputError(f"{folder}: servetune comes with an engine of that name; rename the folder")
    return _with_times(facts, Path(folder, FILE))


def _with_times(facts: EngineFacts, path: Path) -> EngineFacts:
    """Raises InputError where `times_of` names no release that has kernel times itself."""
    if not facts.times_of:
        return facts
    try:
        other = facts_of(find_engine(facts.times_of)) if name_of(facts.times_of) != facts.name else facts
    except InputError as error:
        raise InputError(f"{path}: times_of: {error}") from None
    if other.times_of:
        with_times = [name for name in engine_names() if name != facts.name and not _built_in(name).times_of]
        raise InputError(
            f"{path}: times_of: must name an engine with kernel times of its own ({', '.join(with_times)}), but got "
            f"{facts.times_of}"
        )
    return facts


def find_engine(text: str, *, directory: Path | None = None, any_release: bool = False) -> Engine:
    """`vllm`, `vllm@0.27.0` for a release other than the default, or `./my-engine` for a folder beside `directory`.

    Raises UnknownNameError for an engine, or a release without data unless `any_release` is accepted; InputError for a
    folder that describes no engine. Without `directory`, no folder is taken.
    """
    if directory is not None and is_folder(text):
        return _found(*_own_folder(text, directory), any_release=any_release)
    name, _, version = text.partition("@")
    return _found(Engine(name=name, version=""), version, any_release=any_release)


def _own_folder(text: str, directory: Path) -> tuple[Engine, str]:
    """The engine of a folder, without its release, and the release asked for."""
    path = folder_of(text)
    if not path.isprintable():
        raise InputError(f"{shown(text)}: an engine's folder has a printable name")
    if ".." in Path(path).parts:
        raise InputError(f"{shown(text)}: an engine's folder is named without `..`, from the experiment's folder on")
    folder = abspath(directory / path)  # noqa: PTH100 links are kept, as the user named them
    return Engine(name=Path(folder).name, version="", folder=folder), text[len(path) + 1 :]


def _found(engine: Engine, version: str, *, any_release: bool) -> Engine:
    facts = facts_of(engine)
    known = version in facts.versions or ((any_release or facts.times_of) and RELEASE.fullmatch(version))
    if version and not known:
        raise UnknownNameError(f"{facts.name} version", version, facts.versions)
    return Engine(name=facts.name, version=version or facts.versions[0], folder=engine.folder)


def timed_as(engine: Engine, *, stand_in: bool = False) -> Engine:
    """The release whose kernel times an engine is simulated with.

    Its own; where it names another's (`times_of`), that; with `stand_in`, where its release has none, the nearest
    that has: the newest before it, else the oldest. Raises InfeasibleError for a user's own engine that names none.
    """
    facts = facts_of(engine)
    if facts.times_of:
        return find_engine(facts.times_of)
    if engine.folder is not None:
        raise InfeasibleError(NO_KERNEL_DATA, f"{facts.name} names no engine whose kernel times stand in (times_of)")
    return nearest_release(engine) if stand_in else engine


def nearest_release(engine: Engine) -> Engine:
    """The release with kernel times that is nearest: the same, else the newest before it, else the oldest."""
    versions = sorted(facts_of(engine).versions, key=_order)
    older = [version for version in versions if _order(version) <= _order(engine.version)]
    return Engine(name=engine.name, version=(older or versions[:1])[-1], folder=engine.folder)


def _order(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")

"""The Python of an engine's folder: what data cannot say. A user's own folder has none."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from search_spaces.config import Engine
from search_spaces.engines.folders import HOME, file_of


def part(engine: Engine, name: str) -> Any:
    """A module of the engine's folder, such as `laws`; None where it has none."""
    return None if engine.folder is not None else _built_in(engine.name, name)


def parser_script(engine: Engine) -> Path | None:
    """The script that declares the engine's argument parser, to be run in the engine's environment; None without."""
    path = file_of(engine.name, "parser.py")
    return path if engine.folder is None and path.is_file() else None


@cache
def _built_in(engine: str, name: str) -> Any:
    if not file_of(engine, f"{name}.py").is_file():
        return None
    return import_module(f"{HOME}.{engine}.{name}")

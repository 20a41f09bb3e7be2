"""The Python of an engine's folder: what data cannot say. A user's own folder has none."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from search_spaces.config import Engine
from search_spaces.engines.folders import HOME, file_of
from search_spaces.engines.law import Law
from search_spaces.engines.worker import Address, Placement, Rendered, Worker


class Command(Protocol):
    """`command.py`: how a worker is started alone, and what its command cannot say, in sentences."""

    render: Callable[[Worker], Rendered]
    notes: Callable[[Worker], list[str]]


class Deploy(Protocol):
    """`deploy.py`: several workers behind a router, one over several machines, and one under Dynamo.

    What `across_nodes` is given depends on `deploying.by_mpi`: argv, hosts and gpus, and the first machine starts all;
    or argv, nodes, rank and leader, on each.
    """

    router: Callable[[Sequence[Address], Sequence[Address], Placement], Rendered]
    across_nodes: Callable[..., tuple[str, ...]]
    under_dynamo: Callable[[Worker, Rendered], Rendered]


def command_of(engine: Engine) -> Command:
    """Of an engine that data does not describe."""
    return cast("Command", part(engine, "command"))


def deploy_of(engine: Engine) -> Deploy:
    """Of an engine whose workers hand over to others, span machines or run under Dynamo."""
    return cast("Deploy", part(engine, "deploy"))


def laws_of(engine: Engine) -> tuple[Law, ...]:
    """An engine's own laws."""
    own = part(engine, "laws")
    return own.LAWS if own else ()


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

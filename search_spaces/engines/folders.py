"""Where engines are described: a folder each beside this file, or one of the user's own. Nothing is read."""

from functools import cache
from importlib.resources import files
from pathlib import Path

FILE = "engine.yaml"
"""What makes a folder an engine's."""

HOME = "search_spaces.engines"


@cache
def engine_names() -> tuple[str, ...]:
    """The engines that servetune comes with."""
    return tuple(sorted(folder.name for folder in files(HOME).iterdir() if folder.joinpath(FILE).is_file()))


def file_of(engine: str, name: str) -> Path:
    """A file in the folder of an engine that servetune comes with."""
    return Path(str(files(HOME).joinpath(engine, name)))


def is_folder(text: str) -> bool:
    """Whether an engine is named by the folder that describes it."""
    return "/" in text or text.startswith(".")


def folder_of(text: str) -> str:
    """`./my-engine` of `./my-engine@1.2.0`."""
    above, slash, last = text.rpartition("/")
    return above + slash + last.partition("@")[0]


def name_of(text: str) -> str:
    """`vllm` of `vllm@0.27.0`, `my-engine` of `./my-engine@1.2.0`."""
    return folder_of(text).rpartition("/")[2]

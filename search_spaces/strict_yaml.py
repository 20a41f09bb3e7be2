"""Strict YAML: one file read safely, and what is wrong with it in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from search_spaces.errors import InputError

SHOWN = 60
"""Characters of a value that a message shows."""


def shown(value: object) -> str:
    """A value as a message shows it: short, whatever it is."""
    if isinstance(value, (dict, set)):
        return f"a mapping of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 2 * SHOWN:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        value = value[:SHOWN]
    return "nothing" if value is None else repr(value)


class Problems:
    """What is wrong with one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    @contextmanager
    def at(self, key: str) -> Iterator[None]:
        """Notes an InputError as a problem of this key, and goes on."""
        try:
            yield
        except InputError as error:
            self.lines.append(f"{key}: {error}")

    def require(self, key: str, *, holds: bool, law: str) -> None:
        if not holds:
            self.lines.append(f"{key}: {law}")

    def error(self) -> InputError:
        return InputError("\n".join(f"{self.path}: {printable(line)}" for line in self.lines))


class _LocatedConstructor(SafeConstructor):
    """Says where a value stands that cannot be what its tag says (such as 2026-02-30, no date)."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            tag = str(node.tag).rpartition(":")[2]
            problem = f"{shown(node.value)} cannot be read as a {tag}: {error}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


class _PlainComposer(Composer):
    """Takes no aliases: a few lines of them stand for more than fits the memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(AliasEvent):
            mark = self.parser.peek_event().start_mark
            raise ComposerError(None, None, "aliases are not taken here; write it out", mark)
        return super().compose_node(parent, index)


def parse_yaml(path: Path, text: str, *, aliases: bool = True) -> object:
    """Raises InputError with the place of what cannot be read."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _LocatedConstructor
    if not aliases:
        yaml.Composer = _PlainComposer
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = str(error.problem or error.context)[: 4 * SHOWN]
        raise InputError(f"{path}: {where}{printable(problem)}") from None
    except YAMLError as error:
        raise InputError(f"{path}: {printable(' '.join(str(error).split()))}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read") from None
    except AssertionError:  # how ruamel refuses a key that comes twice in an ordered mapping
        raise InputError(f"{path}: a key of an `!!omap` comes twice") from None


def printable(text: object) -> str:
    """Text in one line that no control character can disturb."""
    line = str(text)
    return line if line.isprintable() else repr(line)[1:-1]

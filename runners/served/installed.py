"""What is installed: which engines an environment holds, and whether one of them knows the options of a command."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from runners.runner import RunFailedError
from search_spaces.config import Engine
from search_spaces.engines.engine import engines, facts_of, find_engine
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.parts import parser_script
from search_spaces.engines.worker import Command
from search_spaces.errors import InputError, nearest_first

PARSER_TIME_S = 180.0
"""An engine's imports take 20 to 60 s on a busy machine."""

VERSIONS_TIME_S = 20.0
SHOWN_OPTIONS = 5

ORCHESTRATORS: Mapping[str, tuple[str, ...]] = {"dynamo": ("ai-dynamo",)}

LIST_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    version: str
    options: tuple[str, ...]
    settings: tuple[str, ...]
    error: str
    facts: EngineFacts

    @property
    def title(self) -> str:
        return f"{self.facts.title} {self.version}"

    def unknown_option(self, arguments: Sequence[str]) -> str:
        """What is wrong with the first option that is unknown; parsers take unique beginnings for the whole."""
        for option in filter(None, map(_option, arguments)):
            dashed = option.replace("_", "-") if self.facts.packages.dashes else option
            if not any(known.startswith((option, dashed)) for known in self.options):
                return f"{self.title} has no option {option}; nearest: {_nearest(option, self.options)}"
        return ""

    def unknown_setting(self, files: Mapping[str, str]) -> str:
        for key in _settings(files):
            if self.settings and key not in self.settings:
                return f"{self.title} has no setting {key}; nearest: {_nearest(key, self.settings)}"
        return ""


def installed_engines(python: Path | None = None, own: Iterable[Engine] = ()) -> dict[str, str]:
    """Versions of the engines (and of Dynamo) in an environment, by name; nothing is imported.

    `own` are the user's. Raises InputError where that Python does not run.
    """
    known = {**engines(), **{engine.name: facts_of(engine) for engine in own}}
    sought = {**{name: facts.packages.distributions for name, facts in known.items()}, **ORCHESTRATORS}
    names = [name for alternatives in sought.values() for name in alternatives]
    found = json.loads(_ask(python or Path(sys.executable), LIST_VERSIONS, names, VERSIONS_TIME_S))
    first = {engine: next(filter(found.__contains__, names), "") for engine, names in sought.items()}
    return {engine: found[name] for engine, name in first.items() if name}


def check_installed(command: Command, python: Path, *, time_limit_s: float = PARSER_TIME_S) -> None:
    """Asks the engine in `python`'s environment whether it knows every option of `command`, and takes its values.

    Nothing is started. Raises InputError, which names the option, the installed version and the nearest valid options;
    also where the engine is not installed there or did not answer in time.
    """
    engine, arguments = _arguments(command)
    answer = _asked(engine, arguments, python, time_limit_s)
    unknown = answer.unknown_option(arguments) or answer.unknown_setting(command.files)
    if unknown:
        raise InputError(unknown)
    if answer.error:
        raise InputError(f"{answer.title} does not take these arguments: {answer.error}")


class OwnParser:
    """An environment's engines, each asked for its options once: checking a further command costs nothing.

    An engine that cannot be asked passes every command; its start then says what is wrong.
    """

    def __init__(self, python: Path, *, time_limit_s: float = PARSER_TIME_S) -> None:
        self._python = python
        self._time_limit_s = time_limit_s
        self._answers: dict[Engine, _Answer | None] = {}

    def check(self, engine: Engine, argv: Sequence[str], files: Mapping[str, str]) -> None:
        """Raises RunFailedError for an option or a setting that the installed release does not know."""
        if engine not in self._answers:
            try:
                self._answers[engine] = _asked(engine, [], self._python, self._time_limit_s)
            except InputError:
                self._answers[engine] = None
        answer = self._answers[engine]
        unknown = (answer.unknown_option(argv) or answer.unknown_setting(files)) if answer else ""
        if unknown:
            raise RunFailedError("unsupported flag", unknown)


def _arguments(command: Command) -> tuple[Engine, Sequence[str]]:
    for name, facts in engines().items():
        for launcher in filter(None, (facts.packages.launcher, facts.packages.as_module)):
            if command.argv[: len(launcher)] == launcher and command.role != "router":
                return find_engine(name), command.argv[len(launcher) :]
    raise InputError(f"there is no engine's parser to ask about {' '.join(command.argv[:3])}")


def _option(argument: str) -> str | None:
    """`--speculative-config.method=mtp` is the option `--speculative-config`."""
    if not argument.startswith("--"):
        return None
    return argument.partition("=")[0].partition(".")[0]


def _nearest(name: str, valid: Sequence[str]) -> str:
    return ", ".join(nearest_first(name, list(valid))[:SHOWN_OPTIONS])


def _settings(files: Mapping[str, str]) -> list[str]:
    from ruamel.yaml import YAML

    reader = YAML(typ="safe", pure=True)
    return [key for text in files.values() for key in reader.load(text)]


def _asked(engine: Engine, arguments: Sequence[str], python: Path, time_limit_s: float) -> _Answer:
    facts, own = facts_of(engine), parser_script(engine)
    if own is None:
        raise InputError(f"there is no parser to ask about {facts.title}")
    script = resources("runners.served").joinpath("ask_parser.py").read_text(encoding="utf-8")
    about = [str(own), facts.packages.module, ",".join(facts.packages.distributions)]
    line = _ask(python, script, [*about, *arguments], time_limit_s).strip().rpartition("\n")[2]
    said = json.loads(line)
    return _Answer(
        version=said["version"],
        options=tuple(said["options"]),
        settings=tuple(said["settings"]),
        error=said["error"],
        facts=facts,
    )


def _ask(python: Path, script: str, arguments: Sequence[str], time_limit_s: float) -> str:
    """What a script prints in another environment; it runs in an empty folder, so that no file there is imported."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(  # noqa: S603 an argument list, without a shell
                [str(python.absolute()), "-c", script, *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=time_limit_s,
                check=False,
            )
        except OSError as error:
            raise InputError(f"{python}: is no Python that runs ({error.strerror})") from None
        except subprocess.TimeoutExpired:
            raise InputError(f"{python}: the engine's parser did not answer within {time_limit_s:g} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(f"{python}: the engine cannot be asked there ({reason})")
    return done.stdout

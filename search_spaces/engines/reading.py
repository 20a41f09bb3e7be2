"""engine.yaml, read strictly: of an engine that servetune comes with, or of a user's own folder."""

import re
import stat
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search_spaces.config import METHODS
from search_spaces.engines.facts import WORKER_KNOBS, EngineFacts, Spelling
from search_spaces.engines.folders import FILE, file_of
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.knobs import KNOBS
from search_spaces.strict_facts import noun_of
from search_spaces.strict_yaml import SHOWN, Problems, parse_yaml, printable, shown

MOST_BYTES = 1 << 16
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
OPTION = re.compile(r"-{1,2}[A-Za-z][\w.-]*=?")
VARIABLE = re.compile(r"[A-Za-z_]\w*")
CAUSE = re.compile(r"[A-Za-z][A-Za-z ]{0,39}")


NEED_PYTHON = (
    *("takes", "methods", "kv_cache", "quantization", "disaggregates", "deploying", "dynamo"),
    *("published", "gemm_times_of"),
)
"""Facts that nothing but an engine's own Python reads, or that data says elsewhere."""

PLACEHOLDERS = ("python", "checkpoint", "host", "port", "draft")
"""What the arguments of a command may leave open; `{python}` is the interpreter of the engine's environment."""


def built_in(name: str) -> EngineFacts:
    """Of a folder beside this file."""
    text = file_of(name, FILE).read_text(encoding="utf-8")
    return _facts(name, Path(name, FILE), text, has_python=file_of(name, "command.py").is_file())


def own(folder: Path) -> EngineFacts:
    """Of a user's folder: data only, nothing in it is run. Raises InputError with everything that is wrong with it."""
    return _facts(folder.name, folder / FILE, _text(folder, folder / FILE))


def written(folder: Path) -> object:
    """What a user's folder says, unchecked. Raises InputError where it is no folder, or its file cannot be read."""
    return parse_yaml(folder / FILE, _text(folder, folder / FILE), aliases=False)


def _text(folder: Path, path: Path) -> str:
    """Raises InputError for what is no folder with a text file in it."""
    if not NAME.fullmatch(folder.name):
        raise InputError(
            f"{printable(folder)}: the folder's name is the engine's: a-z, 0-9, `-`, `_` and `.`, at most 40, "
            f"but got {shown(folder.name)}"
        )
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise InputError(f"{folder}: must be a folder with {FILE} in it, but is a file")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: must be a file")
        if found.st_size > MOST_BYTES:
            raise InputError(f"{path}: must have at most {MOST_BYTES} bytes, but has {found.st_size}")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, but byte {error.start} is not") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _facts(name: str, path: Path, text: str, *, has_python: bool = False) -> EngineFacts:
    data = parse_yaml(path, text, aliases=False)
    if not isinstance(data, dict):
        raise InputError(f"{path}: must be a mapping with the keys title, versions, command, but got {shown(data)}")
    problems = Problems(path)
    for key in NEED_PYTHON if "command" in data else ():
        law = "is for engines with Python of their own; spell each knob in `knobs`"
        problems.require(key, holds=key not in data, law=law)
    facts = noun_of(EngineFacts, _spelled_out(name, data, problems), problems)
    if facts is None:
        raise problems.error()
    law = "missing (the arguments that start it, such as [my-server, '{checkpoint}', --port, '{port}'])"
    problems.require("command", holds=facts.is_data or has_python, law=law)
    _check_knobs(facts, problems)
    _check_command(facts, problems)
    _check_words(facts, problems)
    if problems.lines:
        raise problems.error()
    return facts


def _spelled_out(name: str, data: Mapping[Any, Any], problems: Problems) -> dict[Any, Any]:
    """With the engine's name, with `--tp` for {option: --tp}, and with what the spelling of its knobs says already."""
    if "name" in data:
        problems.lines.append("name: is the folder's, and not given here")
    full = {**data, "name": name}
    knobs = data.get("knobs")
    if isinstance(knobs, dict):
        spelled = {knob: {"option": how} if isinstance(how, str) else how for knob, how in knobs.items()}
        full["knobs"] = spelled
        methods = [name for name in _values(spelled, "speculation.method") if name in METHODS]
        formats = {name: text for name, text in _values(spelled, "precision.weights").items() if isinstance(text, str)}
        full |= ({"methods": methods} if methods else {}) | ({"quantization": formats} if formats else {})
    return full


def _values(spelled: Mapping[Any, Any], knob: str) -> Mapping[Any, Any]:
    spelling = spelled.get(knob)
    values = spelling.get("values") if isinstance(spelling, dict) else None
    return values if isinstance(values, dict) else {}


# Laws between keys


def _check_knobs(facts: EngineFacts, problems: Problems) -> None:
    for knob in (*facts.takes, *facts.knobs):
        if knob not in WORKER_KNOBS:
            problems.lines.append(str(UnknownNameError("knob", knob[:SHOWN], WORKER_KNOBS)))
    for knob, spelling in facts.knobs.items():
        for law in _broken_spelling(knob, spelling):
            problems.lines.append(f"knobs.{knob}.{law}")
    law = "speculation.method needs speculation.draft_length beside it"
    spelled = "speculation.draft_length" in facts.knobs
    problems.require("knobs", holds=spelled or len(facts.methods) == 1 or not facts.is_data, law=law)
    law = f"must have `none`, but got {', '.join(facts.methods)}"
    problems.require("knobs.speculation.method.values", holds="none" in facts.methods, law=law)


def _broken_spelling(knob: str, spelling: Spelling) -> Iterable[str]:
    if spelling.option and not OPTION.fullmatch(spelling.option):
        yield f"option: must be an option such as --max-seqs, but got {spelling.option!r}"
    if not spelling.option and not spelling.values:
        yield "option: missing"
    if spelling.option.endswith("=") and any(argument is True for argument in spelling.values.values()):
        yield "values: an option that ends with `=` is no bare flag"
    for other in spelling.times:
        if other not in WORKER_KNOBS or not other.startswith("layout."):
            sizes = [name for name in WORKER_KNOBS if name.startswith("layout.")]
            yield f"times: {UnknownNameError('size', other[:SHOWN], sizes)}"
    if spelling.times and not knob.startswith(("layout.", "batching.")):
        yield "times: only numbers are multiplied"
    for value in spelling.values if knob in KNOBS else ():
        if KNOBS[knob].is_number and not value.isdecimal():
            yield f"values: must be by whole numbers, but got {shown(value)}"
        if KNOBS[knob].names and value not in KNOBS[knob].names:
            yield f"values: {UnknownNameError('value', value[:SHOWN], KNOBS[knob].names)}"


def _check_command(facts: EngineFacts, problems: Problems) -> None:
    found: set[str] = set()
    for index, part in enumerate(facts.command):
        with problems.at(f"command[{index}]"):
            names = _placeholders(part)
            found |= names
            if "python" in names and (index or part != "{python}"):
                raise InputError("{python} must be the first argument, alone")
            if not index and not part:
                raise InputError("must be a program, but is empty")
    for needed in ("checkpoint", "port"):
        problems.require("command", holds=needed in found or not facts.is_data, law=f"must have {{{needed}}} in it")


def _placeholders(part: str) -> set[str]:
    """Those of one argument of a command. Raises InputError for one that is unknown."""
    try:
        found = _names_in_braces(part)
    except ValueError as error:
        raise InputError(f"{error} (a brace itself is written twice), but got {shown(part)}") from None
    for name in found:
        if name not in PLACEHOLDERS:
            raise UnknownNameError("placeholder", name[:SHOWN], PLACEHOLDERS)
    return found


def _names_in_braces(text: str) -> set[str]:
    """With what else `str.format` would take there. Raises ValueError for braces without an end."""
    return {
        name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, name, form, conversion in string.Formatter().parse(text)
        if name is not None
    }


def _check_words(facts: EngineFacts, problems: Problems) -> None:
    problems.require(
        "image",
        holds="{" not in facts.image.replace("{version}", ""),
        law=f"may have the placeholder {{version}} only, but got {shown(facts.image)}",
    )
    problems.require(
        "server.model_name",
        holds="{" not in facts.server.model_name.replace("{checkpoint}", ""),
        law=f"may have the placeholder {{checkpoint}} only, but got {shown(facts.server.model_name)}",
    )
    for name in facts.env:
        law = f"must name environment variables, but got {shown(name)}"
        problems.require("env", holds=bool(VARIABLE.fullmatch(name)), law=law)
    for cause, patterns in facts.failures.items():
        law = f"a cause is a few words such as `out of memory`, but got {shown(cause)}"
        problems.require("failures", holds=bool(CAUSE.fullmatch(cause)), law=law)
        _check_patterns(f"failures.{cause}", patterns, problems)
    for key, found in (("core", (facts.log.core,)), ("pointers", facts.log.pointers), ("dead", facts.log.dead)):
        _check_patterns(f"log.{key}", found, problems)


def _check_patterns(key: str, patterns: Iterable[str], problems: Problems) -> None:
    for pattern in patterns:
        with problems.at(key):
            _compile(pattern)


def _compile(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"no regular expression ({error}): {shown(pattern)}") from None

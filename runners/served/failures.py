"""Why a server failed: a named cause, from its log and from how it ended."""

import re
import signal
from pathlib import Path
from typing import Final

from runners.runner import OUT_OF_MEMORY, RunFailedError
from search_spaces.config import Engine
from search_spaces.engines.signs import signs_of

TAIL_LINES = 20
READ_BYTES = 1 << 20
"""Of the log's beginning and of its end: what is read to find the cause."""

ENVIRONMENT: Final = frozenset(
    {"engine not installed", "disk full", "port in use", "no GPU", "engine broken", "other release"}
)
"""Causes that lie in the machine: every other configuration would fail alike."""

CORE_KILLED: Final = "engine core killed"
SERVER_KILLED: Final = "server killed"

CAUSES_UNDER_LOAD: Final = ("disk full", OUT_OF_MEMORY)
"""A server that came up had no fault in its arguments: what else is said to be invalid was some client's request."""

# A line that raises, as Python and the engines' loggers write it: `(EngineCore pid=7) ERROR 11-21 ... XError: why`.
RAISED = re.compile(r"(?:^|[\s\]])((?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)\b: ?.*|[\w.-]+: error: .*)$")
HARMLESS = re.compile(r"\b(WARNING|INFO|DEBUG)\b|UserWarning|FutureWarning|DeprecationWarning|, retrying \d")
VALIDATION = re.compile(r"(validation errors? for \w+)\n[^\n]*?(?=Value error)")
FAULT = re.compile(r"^Fatal Python error: ([A-Z][a-z -]+)$", re.MULTILINE)
FAULTS: Final = {
    "Segmentation fault": signal.SIGSEGV,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
}
"""The signals that Python's faulthandler writes down, where PYTHONFAULTHANDLER is set, before they end the process."""


def diagnose(log: str, engine: Engine, *, under_load: bool = False) -> tuple[str, str]:
    """The cause by name and the line that says it; both empty where the log says nothing of the kind.

    The first error of the engine's own process is the cause: later ones, and the last line, only point to it.
    """
    signs = signs_of(engine)
    log = VALIDATION.sub(r"\1: ", log)
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not HARMLESS.search(line)]
    raised = [line for line in lines if RAISED.search(line) and not signs.pointers.search(line)]
    first = [line for line in raised if signs.core.search(line)]
    main = first[:1] if under_load else first[:1] or raised[-1:]
    for suspects in (main, raised, lines):
        for sign in signs.causes:
            for line in suspects if not under_load or sign.cause in CAUSES_UNDER_LOAD else ():
                if sign.words.search(line):
                    return sign.cause, _bare(line)
    return "", _bare(main[0]) if main else ""


def says_it_is_dead(log: str, engine: Engine) -> bool:
    """Whether the engine's own process has failed, though the server that stands before it may live on."""
    return bool(signs_of(engine).dead.search(log))


def read_log(path: Path) -> str:
    """Beginning and end of a log. A log that is not there is empty."""
    try:
        with path.open("rb") as log:
            head = log.read(READ_BYTES)
            size = log.seek(0, 2)
            log.seek(max(READ_BYTES, size - READ_BYTES))
            text = head + log.read()
    except OSError:
        return ""
    return text.decode("utf-8", errors="replace")


def tail(log: str, lines: int = TAIL_LINES) -> str:
    return "\n".join(log.splitlines()[-lines:])


def failure(
    state: str,
    *,
    engine: Engine,
    log: Path,
    exit_code: int | None,
    core_signal: int | None = None,
    otherwise: str,
    under_load: bool = False,
) -> RunFailedError:
    """What to raise for a server that ended; its cause is `otherwise` where neither its log nor a signal names one.

    `state` says what it was doing. `core_signal` is the signal that ended a process of its own (see `Descendants`).
    """
    text = read_log(log)
    cause, line = diagnose(text, engine, under_load=under_load)
    ending = "still running" if exit_code is None else f"exit {exit_code}"
    if exit_code is not None and exit_code < 0:
        ending = f"ended by {in_words(-exit_code)}"
    if not cause:
        cause, by = _killed(text, engine, exit_code, core_signal)
        ending = f"{by}, {ending}" if cause == CORE_KILLED else by or ending
    said = f": {line}" if line else ""
    return known_failure(cause or otherwise, f"{ending} {state}{said}", log=log)


def _killed(log: str, engine: Engine, exit_code: int | None, core_signal: int | None) -> tuple[str, str]:
    """Whom a signal ended, and which, in words; both empty where none is known.

    A server may end itself because of a fault in its engine's core, and it kills what is left of an engine that raised
    an error: a fault of the core comes first, and its SIGKILL last.
    """
    if core_signal is not None and core_signal != signal.SIGKILL:
        return CORE_KILLED, in_words(core_signal)
    if exit_code is not None and exit_code < 0:
        return SERVER_KILLED, in_words(-exit_code)
    if fault := next((FAULTS[words] for words in FAULT.findall(log) if words in FAULTS), None):
        return CORE_KILLED, in_words(fault)
    if core_signal is not None and not any(map(signs_of(engine).core.match, log.splitlines())):
        return CORE_KILLED, in_words(core_signal)
    return "", ""


def in_words(number: int) -> str:
    """`illegal instruction (SIGILL)`. A SIGKILL that nobody ordered says nothing of the GPU's memory."""
    if number == signal.SIGKILL:
        return "SIGKILL, as the kernel does when the host's memory runs out"
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{(signal.strsignal(number) or 'unknown').lower()} ({name})"


def known_failure(cause: str, what: str, *, log: Path) -> RunFailedError:
    """What to raise for a cause that is known: state, path and the tail of the log."""
    end = tail(read_log(log))
    return RunFailedError(cause, f"{what}\nlog: {log}\n{end}".rstrip(), environment=cause in ENVIRONMENT)


def _bare(line: str) -> str:
    """The message without the logger's prefix, of a length to be read."""
    found = RAISED.search(line)
    return (found.group(1) if found else line).strip()[:300]

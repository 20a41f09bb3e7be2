"""The file that a study lives in: an Optuna journal that survives a crash and has one writer at a time."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from search_spaces.errors import InputError, nearest_first
from tuner.search.trial import trial_from_json
from tuner.study.asked import differing
from tuner.study.migration import ASKED, SUFFIX, is_earlier, migrate, migrated

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage

LINE_START = b'{"op_code":'
CREATE_TRIAL = 4
"""Optuna's JournalOperation.CREATE_TRIAL; trials are numbered in their order."""


@contextmanager
def open_study(
    folder: Path, name: str, sampler: "BaseSampler | None" = None, *, experiment: Mapping[str, Any] | None = None
) -> Iterator["Study"]:
    """The study of that name, made on first use, for this process alone.

    `experiment`, as JSON, is kept with a new study. An advisory lock of the operating system is held until the block
    ends; it vanishes with the process, so a killed search blocks nobody. Raises InputError when another process holds
    it, when the file is no journal of this study (it is left as it is), or when the study is of another experiment.
    """
    path = folder / f"{name}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"), blocking=False)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{path}: another process is tuning this study; wait for it, or give yours another name with --study"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: no study can be kept there: {error.strerror}; see --studies") from None
    try:
        study = _opened(path, name, sampler)
        _check_experiment(path, study, experiment)
        yield study
    finally:
        lock.release()


def read_study(folder: Path, name: str) -> "Study":
    """A study to look at, whose file is left as it is, earlier names and all.

    Raises InputError when there is none of that name or the file is no journal of it.
    """
    path = folder / f"{name}{SUFFIX}"
    if not path.exists():
        known = nearest_first(name, [file.stem for file in folder.glob(f"*{SUFFIX}")])
        valid = f"; studies there: {', '.join(known)}" if known else ""
        raise InputError(f"{path}: there is no such study{valid}")
    with _named(path):
        lines = _lines(path)
        return _existing(_in_memory(migrated(lines)) if is_earlier(lines) else _storage(path), name, None)


def _opened(path: Path, name: str, sampler: "BaseSampler | None") -> "Study":
    import optuna

    with _named(path):
        torn = _torn_bytes(path)
        if is_earlier(lines := _lines(path)):
            migrate(path, lines)
            torn = 0
        storage = _storage(path)
        new = not storage.get_all_studies()
        if not new:
            study = _existing(storage, name, sampler)
        if torn:
            _cut(path, torn)
        if new:
            study = optuna.create_study(study_name=name, storage=storage, sampler=sampler)
        return study


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever Optuna and JSON raise about what is in the file, as an InputError that names it."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{path}: is not a readable study journal ({reason}); it was left as it is. "
            "Move it away, or give the new study another name with --study"
        ) from None


def _storage(path: Path) -> "JournalStorage":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class HeldLock(JournalFileOpenLock):
        """`open_study` holds the study's lock already: no second one, which a killed process would leave behind."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            return

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=HeldLock(str(path))))


def _in_memory(entries: Sequence[dict[str, Any]]) -> "JournalStorage":
    """For looking at: nothing can be added."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend

    class Entries(BaseJournalBackend):
        def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
            return entries[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            raise AssertionError(logs)

    return JournalStorage(Entries())


def _existing(storage: "JournalStorage", name: str, sampler: "BaseSampler | None") -> "Study":
    """Raises ValueError where it is of another name, or where a record is not that of its trial."""
    import optuna

    from tuner.search.trial import RECORD

    names = [study.study_name for study in storage.get_all_studies()]
    if name not in names:
        raise ValueError(f"it holds the study {', '.join(names)}")
    study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    for trial in study.get_trials(deepcopy=False):
        record = trial.user_attrs.get(RECORD)
        if record is not None and trial_from_json(record).number != trial.number:
            raise ValueError(f"lines are missing before trial {trial.number}")
    return study


def _check_experiment(path: Path, study: "Study", experiment: Mapping[str, Any] | None) -> None:
    if experiment is None:
        return
    kept = study.user_attrs.get(ASKED)
    if kept is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(ASKED, experiment)
    elif other := differing(kept or {}, experiment):
        raise InputError(
            f"{path}: this study is of another experiment (other: {', '.join(other)}); begin another with --study"
        )


def _torn_bytes(path: Path) -> int:
    """How many bytes at the end are a line that a process killed while writing it never ended.

    Raises ValueError or worse for what Optuna would overlook: a last line that is no entry, and entries that are
    missing.
    """
    torn = path.read_bytes().rpartition(b"\n")[2] if path.exists() else b""
    if not LINE_START.startswith(torn[: len(LINE_START)]):
        raise ValueError("the last line is no journal entry")
    created = 0
    for number, line in enumerate(_lines(path), start=1):
        entry = json.loads(line)
        created += entry["op_code"] == CREATE_TRIAL
        if entry.get("trial_id", -1) >= created:
            raise ValueError(f"lines are missing before line {number}")
    return len(torn)


def _lines(path: Path) -> list[bytes]:
    """The whole lines of a file; none where there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _cut(path: Path, torn: int) -> None:
    with path.open("rb+") as file:
        file.seek(-torn, os.SEEK_END)
        file.truncate()
        os.fsync(file.fileno())

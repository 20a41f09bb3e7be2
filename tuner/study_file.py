"""The file that a study lives in: an Optuna journal that survives a crash and has one writer at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from search_spaces.errors import InputError, nearest_first

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

SUFFIX = ".journal"


@contextmanager
def open_study(folder: Path, name: str, sampler: "BaseSampler") -> Iterator["Study"]:
    """The study of that name, made on first use, for this process alone.

    An advisory lock of the operating system is held until the block ends; it vanishes with the process, so a killed
    search blocks nobody. Raises InputError when another process holds it or the file is no journal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{SUFFIX}"
    lock = FileLock(path.with_suffix(".lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{path}: another process is tuning this study; wait for it, or give yours another name with --study"
        ) from None
    try:
        _drop_torn_line(path)
        yield _load(path, name, sampler)
    finally:
        lock.release()


def read_study(folder: Path, name: str) -> "Study":
    """A study to look at. Raises InputError when there is none of that name or the file is no journal."""
    path = folder / f"{name}{SUFFIX}"
    if not path.exists():
        known = nearest_first(name, [file.stem for file in folder.glob(f"*{SUFFIX}")])
        valid = f"; studies there: {', '.join(known)}" if known else ""
        raise InputError(f"{path}: there is no such study{valid}")
    return _load(path, name, None)


def _load(path: Path, name: str, sampler: "BaseSampler | None") -> "Study":
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
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=HeldLock(str(path))))
        return optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            direction="minimize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path}: is not a readable study journal ({type(error).__name__}: {error}); it was left as it is. "
            "Move it away, or give the new study another name with --study"
        ) from None


def _drop_torn_line(path: Path) -> None:
    """A process killed while writing leaves a line without an end; nothing was promised about it yet."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n") and b"\n" in content:
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())

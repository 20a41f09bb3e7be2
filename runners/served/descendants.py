"""Which signal ended a process that a server had started: an engine's core is reaped by the server, not by us."""

import os
import select
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

PIDFD_GET_INFO: Final = 0xC040FF0B
PIDFD_INFO_EXIT: Final = 1 << 3
PIDFD_INFO_BYTES: Final = 64
EXIT_CODE_AT: Final = 60
"""Of `struct pidfd_info` in include/uapi/linux/pidfd.h, since Linux 6.15; its mask of what is filled in comes first."""

ASKED_TO_END: Final = frozenset((int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP)))
"""How a server ends its own processes when it ends: no reason for anything."""


class Descendants:
    """The processes below `pid` that were there at a `look`, each held by a pidfd.

    By that the kernel tells how a process ended, though its parent knows already (Linux 6.15 and later; before,
    only until its parent asks). Where there are no pidfds, nothing is known.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: dict[int, int] = {}

    def look(self) -> None:
        """Takes hold of those that are new. Reads all of /proc: not for the time when tokens are timed."""
        import psutil

        with suppress(psutil.Error):
            for child in psutil.Process(self._pid).children(recursive=True):
                if child.pid not in self._held:
                    with suppress(OSError):
                        self._held[child.pid] = os.pidfd_open(child.pid)

    @property
    def killed_by(self) -> int | None:
        """The signal that ended one of them, but for those that ask it to end; a fault of its own before SIGKILL."""
        statuses = [status for pid, held in self._held.items() if (status := _wait_status(pid, held)) is not None]
        signals = {os.WTERMSIG(status) for status in statuses if os.WIFSIGNALED(status)}
        return min(signals - ASKED_TO_END, key=lambda one: (one == signal.SIGKILL, one), default=None)

    def release(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])


def _wait_status(pid: int, held: int) -> int | None:
    """As of waitpid; None where it lives, or nobody remembers."""
    over = select.poll()
    over.register(held, select.POLLIN)
    if not over.poll(0):
        return None
    return _of_zombie(pid, held) if (status := _of_reaped(held)) is None else status


def _of_reaped(held: int) -> int | None:
    import fcntl

    info = bytearray(PIDFD_INFO_BYTES)
    struct.pack_into("=Q", info, 0, PIDFD_INFO_EXIT)
    with suppress(OSError):
        fcntl.ioctl(held, PIDFD_GET_INFO, info)
        if struct.unpack_from("=Q", info, 0)[0] & PIDFD_INFO_EXIT:
            return int(struct.unpack_from("=i", info, EXIT_CODE_AT)[0])
    return None


def _of_zombie(pid: int, held: int) -> int | None:
    """The last field of /proc/PID/stat, as long as the number is still its own."""
    with suppress(OSError, ValueError):
        status = int(Path(f"/proc/{pid}/stat").read_text().rsplit(maxsplit=1)[1])
        signal.pidfd_send_signal(held, 0)
        return status
    return None

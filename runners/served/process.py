"""A server process that is dead when the `with` ends, and with it everything that it started."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runners.runner import RunFailedError
from runners.served.descendants import Descendants

if TYPE_CHECKING:
    import psutil

MARK = "SERVETUNE_SERVER"
"""An environment variable that every descendant inherits, also one that leaves the server's session."""

KILL_S = 10.0
"""For how long the processes of a killed server may stay."""

POLL_S = 0.05

HANDED_OUT: deque[int] = deque(maxlen=128)
"""Ports given lately: the system may offer one again before its server listens."""

# Reads until the other end of its stdin is closed, by order or by the death of who held it; then kills the group.
LEASH = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


class ServerProcess:
    """A server's process in a session of its own; its output goes to `log`, whole."""

    def __init__(self, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        """Raises RunFailedError where there is no such program, or no space for its log."""
        self.argv = tuple(argv)
        self.log = log
        self._token = uuid.uuid4().hex
        self._began = time.time()
        with _log_file(log) as output:
            try:
                self._process = subprocess.Popen(  # noqa: S603 an argument list, no shell
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**env, MARK: self._token},
                    start_new_session=True,
                )
            except OSError as error:
                raise _not_started(self.argv[0], error) from None
        self._leash = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", LEASH, str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.descendants = Descendants(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the first process lives; negative where a signal ended it."""
        return self._process.poll()

    def survivors(self) -> "list[psutil.Process]":
        """Living processes of this server, the first one included: by session, by descent and by mark."""
        import psutil

        found = {process.pid: process for process in psutil.process_iter() if self._owns(process)}
        with suppress(psutil.NoSuchProcess):
            if self.exit_code is None:
                found |= {child.pid: child for child in psutil.Process(self.pid).children(recursive=True)}
        return [process for process in found.values() if _lives(process)]

    def ask_to_stop(self) -> None:
        """SIGTERM to the first process; it may take its time, or take no notice."""
        if self.exit_code is None:
            self._process.terminate()

    def stop(self, patience_s: float) -> None:
        """Asks the first process to end, and kills what is left after `patience_s` seconds, always.

        A server that streams to a client waits for it without end, and one whose first process was killed leaves
        its workers behind. Raises RunFailedError where a process survives even that.
        """
        family = self.survivors()
        try:
            if self.exit_code is None:
                self.ask_to_stop()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience_s)
        finally:
            self._kill(family)
            self._slip_leash()

    def _owns(self, process: "psutil.Process") -> bool:
        import psutil

        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == self.pid:
                return True
            return process.create_time() >= self._began - 1 and process.environ().get(MARK) == self._token
        return False

    def _kill(self, family: "list[psutil.Process]") -> None:
        import psutil

        end = time.monotonic() + KILL_S
        while True:
            left = {*self.survivors(), *filter(_lives, family)}
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            for process in left:
                with suppress(psutil.Error):
                    process.kill()  # by pid and start time, so never a stranger with the same number
            self._process.poll()
            if not left:
                return
            if time.monotonic() > end:
                names = ", ".join(str(process.pid) for process in left)
                raise RunFailedError("server would not die", f"processes {names} survive SIGKILL", environment=True)
            time.sleep(POLL_S)

    def _slip_leash(self) -> None:
        self.descendants.release()
        self._process.wait()
        self._leash.kill()
        assert self._leash.stdin is not None
        self._leash.stdin.close()
        self._leash.wait()


@contextmanager
def running(
    argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str], patience_s: float = 10.0
) -> Iterator[ServerProcess]:
    """Starts a server; when the `with` ends it is dead, with every descendant.

    It is dead too where this process is killed meanwhile: a small process on a leash sees to that.
    Raises RunFailedError where there is no such program, no space for its log, or a process cannot be killed.
    """
    process = ServerProcess(argv, log=log, cwd=cwd, env=env)
    try:
        yield process
    finally:
        process.stop(patience_s)


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """So many different ports on which nobody listens; another program may still be quicker to take one."""
    with_sockets: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            with_sockets.append(socket.create_server((host, 0)))
            port = int(with_sockets[-1].getsockname()[1])
            if port not in HANDED_OUT:
                ports.append(port)
    finally:
        for held in with_sockets:
            held.close()
    HANDED_OUT.extend(ports)
    return tuple(ports)


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def wait_until_free(ports: Sequence[int], *, limit_s: float = KILL_S) -> None:
    """Raises RunFailedError where one of them is still held after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while held := [port for port in ports if not is_free(port)]:
        if time.monotonic() > end:
            raise RunFailedError("port in use", f"{held} held after the server ended", environment=True)
        time.sleep(POLL_S)


def _log_file(log: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise unwritable(log, error) from None


def unwritable(path: Path, error: OSError) -> RunFailedError:
    """What to raise for a file that cannot be written."""
    cause = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "no log"
    return RunFailedError(cause, f"{path}: {error.strerror}", environment=True)


def _not_started(program: str, error: OSError) -> RunFailedError:
    return RunFailedError("engine not installed", f"{program}: {error.strerror}", environment=True)


def _lives(process: "psutil.Process") -> bool:
    import psutil

    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

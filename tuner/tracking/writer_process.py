"""The process that writes to MLflow while the search goes on: started, fed, listened to, and dead in the end."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tuner.tracking import mlflow_writer
from tuner.tracking.store import sqlite_file

GRACE_S = 5.0

# Where the user has not chosen: no calls home, and minutes less of waiting for a server that is not there.
WRITER_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class WriterProcess:
    """The running `mlflow_writer`. Messages go in without waiting; a thread listens to what comes out.

    `trouble` is why writing is held up, or was given up; `heard` when it last said something.
    """

    def __init__(self, uri: str) -> None:
        self.trouble: str | None = None
        self.heard = time.monotonic()
        self._written: set[int] = set()
        self._ended = False
        self._silent = Event()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603 our own file
            [sys.executable, "-P", mlflow_writer.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=_folder(uri),
            env={**WRITER_ENVIRONMENT, **os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,  # Ctrl-C is for the search
        )
        self._threads = [Thread(target=target, daemon=True) for target in (self._feed, self._listen)]
        for thread in self._threads:
            thread.start()

    @property
    def written(self) -> int:
        """How many trials MLflow has."""
        return len(self._written)

    def send(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message).encode() + b"\n")

    def finished(self, *, wait_s: float) -> bool:
        """Whether nothing more will be said."""
        return self._silent.wait(wait_s)

    def close(self) -> None:
        """Dead afterwards: told to stop unless it has finished, and killed when it does not."""
        self._lines.put(None)
        try:
            if not self._silent.is_set():
                self._process.terminate()
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(GRACE_S)
        with self._errors:
            well = self._ended and self._process.returncode == 0
            self.trouble = None if well else self.trouble or self._last_words()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._hear(json.loads(line))
        self._silent.set()

    def _hear(self, said: dict[str, Any]) -> None:
        self.heard = time.monotonic()
        self.trouble = said.get("trouble")
        if "wrote" in said:
            self._written.add(said["wrote"])
        self._ended = "ended" in said

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return f"its writer ended with exit code {self._process.returncode}{last}"


def _folder(uri: str) -> Path | None:
    """Where the writer works: beside an SQLite store, since that is where MLflow then puts the artifacts."""
    path = sqlite_file(uri)
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent

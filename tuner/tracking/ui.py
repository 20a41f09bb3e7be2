"""Pages to look at a study: MLflow's own UI at the study's charts, or the Optuna dashboard, on loopback."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from search_spaces.errors import InputError
from tuner.scenario.scenario import Scenario
from tuner.tracking.mlflow_view import view_path
from tuner.tracking.mlflow_writer import STUDY_TAG
from tuner.tracking.store import experiment_name, shown

HOST = "127.0.0.1"
START_S = 60.0
GRACE_S = 5.0
TICK_S = 0.2

# Two processes instead of ten: the jobs of MLflow's server are for what servetune does not use.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def mlflow_page(uri: str, scenario: Scenario, study: str, *, port: int | None = None) -> Iterator[str]:
    """The address of a study's charts in MLflow's UI; where runs are kept in a database, a server is up meanwhile.

    Raises InputError for a study that MLflow does not have, and for a server that does not come up.
    """
    path = _study_path(uri, scenario, study)
    if uri.startswith(("http://", "https://")):
        yield uri.rstrip("/") + path
        return
    port = port or free_port()
    options = ["--host", HOST, "--port", str(port), "--workers", "1", "--backend-store-uri", uri]
    with _served([sys.executable, "-m", "mlflow", "server", *options], port):
        yield f"http://{HOST}:{port}{path}"


@contextmanager
def optuna_page(journal: Path, *, port: int | None = None) -> Iterator[str]:
    """The address of the Optuna dashboard of one study, while it is up.

    It has a copy of the journal as it is now: what is edited or deleted there leaves the study alone.

    Raises InputError where the dashboard is not installed or does not come up.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise InputError("the Optuna dashboard is not installed: pip install 'servetune[dashboard]'")
    port = port or free_port()
    program = "from optuna_dashboard._cli import main; main()"
    options = ["--storage-class", "JournalFileStorage", "--host", HOST, "--port", str(port), "--server", "wsgiref"]
    with tempfile.TemporaryDirectory(prefix="servetune-") as folder:
        copy = shutil.copy(journal, folder)
        with _served([sys.executable, "-c", program, *options, str(copy)], port):
            yield f"http://{HOST}:{port}/dashboard/studies/0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _study_path(uri: str, scenario: Scenario, study: str) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    name = experiment_name(scenario)
    client = MlflowClient(uri)
    try:
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id], f"tags.`{STUDY_TAG}` LIKE '%'") if experiment else []
    except MlflowException as error:
        raise InputError(f"MLflow at {shown(uri)} cannot be read: {str(error).splitlines()[0]}") from None
    found = next((run for run in runs if run.data.tags[STUDY_TAG] == study), None)
    if experiment is None or found is None:
        raise InputError(f"MLflow at {shown(uri)} has no study {study} in {name}; was it tuned with --no-track?")
    return view_path(experiment.experiment_id, found.info.run_id)


@contextmanager
def _served(argv: Sequence[str], port: int) -> Iterator[None]:
    """A server process in a group of its own that answers at the port, and is gone with the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 a list of our own
            argv, stdout=log, stderr=log, env={**QUIET, **os.environ}, start_new_session=True
        )
        try:
            _wait(lambda: _answers(port), process, log)
            yield
        finally:
            _end(process)


def _wait(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: object) -> None:
    until = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            raise InputError(f"the server did not come up: {_last_line(log)}")
        time.sleep(TICK_S)


def _last_line(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    lines = log.read().decode(errors="replace").strip().splitlines()  # type: ignore[attr-defined]
    return lines[-1] if lines else "it said nothing"


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://{HOST}:{port}/", timeout=GRACE_S):
            return True
    except (URLError, OSError):
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + GRACE_S
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(TICK_S)  # killed, but not yet gone


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

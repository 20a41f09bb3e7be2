"""MlflowTracker: trials as runs in MLflow, written by a process of its own while the search goes on."""

import json
import os
import queue
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from search_spaces.config import ServingConfig
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Ending, Trial
from tuner.tracking import mlflow_writer
from tuner.tracking.mlflow_view import view
from tuner.tracking.record import datasets, record, scenario_params

Status = Literal["FINISHED", "FAILED", "KILLED"]

# An infeasible trial went as it should; MLflow's UI shows KILLED in the same red as FAILED.
STATUS: Mapping[Ending, Status] = {"measured": "FINISHED", "failed": "FAILED", "infeasible": "FINISHED"}
RUNNERS_UP = 5
TICK_S = 0.1
GRACE_S = 5.0
TROUBLE_LIMIT = 400
NO_FILES: Mapping[str, str] = MappingProxyType({})

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENTS = "servetune/"
"""What the names of MLflow experiments begin with."""

SQLITE_HEADER = b"SQLite format 3\0"
SECRET_NAMES = ("password", "passwd", "pwd", "token", "secret")

# Where the user has not chosen: no calls home, and minutes less of waiting for a server that is not there.
WRITER_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MlflowTracker:
    """A study as an MLflow run, and each of its trials as a run nested in it.

    For use in `with`: a writer process is started on entry and dead after exit. On exit everything logged is
    written, while `on_drain(trials written, trials logged)` is called; it is given up when the writer says
    nothing for `patience_s`. The study's run then ends FINISHED, KILLED after KeyboardInterrupt or once
    `interrupted` is set, FAILED after another exception. Whatever is wrong with the store, the search goes
    on, and `problem` tells it.

    A study that MLflow has already is continued, and a trial that it has already is not written again: after
    a crash all finished trials can be logged once more.

    Raises InputError, when made, for an address that cannot be a store; what is there is left as it is.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        study: str,
        tracking_uri: str | None = None,
        experiment_text: str = "",
        experiment_path: Path | None = None,
        on_drain: Callable[[int, int], None] = lambda _done, _total: None,
        patience_s: float = 60.0,
    ) -> None:
        uri = tracking_uri or default_tracking_uri()
        check_tracking_uri(uri)
        self._uri = absolute_uri(uri)
        self._scenario = scenario
        self._on_drain = on_drain
        self._patience_s = patience_s
        self._commit = _git_commit()
        self._trials: dict[int, Trial] = {}
        self.interrupted = False
        name = experiment_path.name if experiment_path else "experiment.yaml"
        self._opening: dict[str, Any] = {
            "do": "open",
            "sqlite_file": str(sqlite_file(self._uri) or ""),
            "experiment": experiment_name(scenario),
            "study": study,
            "params": scenario_params(scenario),
            "tags": {"mlflow.source.name": "servetune", **_user(), **self._commit},
            "files": {name: hidden(experiment_text, self._uri)} if experiment_text else {},
            "datasets": datasets(scenario),
        }

    def __enter__(self) -> Self:
        self._writer = _Writer(self._uri)
        self._writer.send(self._opening)
        return self

    def log(self, trial: Trial) -> None:
        row = record(trial, self._scenario)
        now = time.time()
        self._trials[trial.number] = trial
        self._writer.send(
            {
                "do": "trial",
                "number": row.number,
                "name": row.name,
                "params": row.params,
                "metrics": row.metrics,
                "curve": row.curve,
                "tags": {**row.tags, **self._commit},
                "status": STATUS[trial.ending],
                "start_ms": _milliseconds(now - trial.seconds),
                "end_ms": _milliseconds(now),
            }
        )

    def summarize(self, best: int | None, markdown: str, files: Mapping[str, str] = NO_FILES) -> None:
        """The verdict: the study's description, its best trial's number, and files to go with it.

        The best trial's metrics appear on the study's run too, its configuration and `files` there under
        `best/`. Its load curve, and those of the next cheapest that meet the SLA, are attached to their own
        runs. The trials are those that this tracker was given.
        """
        trial = None if best is None else self._trials[best]
        row = record(trial, self._scenario) if trial else None
        config = {"config.yaml": config_yaml(trial.config)} if trial and trial.config else {}
        shown_curves = ([trial] if trial else []) + self._runners_up(best)
        self._writer.send(
            {
                "do": "summary",
                "best": best,
                "note": markdown,
                "metrics": row.metrics if row else {},
                "tags": {**row.tags, "best_trial": str(best)} if row else {},
                "files": {f"best/{name}": text for name, text in {**config, **files}.items()},
                "trial_files": [
                    (one.number, {"load_curve.json": _load_curve(one)}) for one in shown_curves if one.levels
                ],
                "view": view(self._scenario, list(self._trials.values())),
                "at_ms": _milliseconds(time.time()),
            }
        )

    @property
    def written(self) -> int:
        """How many of the trials logged are in MLflow."""
        return self._writer.written

    @property
    def problem(self) -> str | None:
        """What is not in MLflow and why, without credentials; None when all is well.

        Final after exit; before, it is what holds writing up just now.
        """
        trouble = self._writer.trouble
        if trouble is None:
            return None
        missing = len(self._trials) - self._writer.written
        what = f"{missing} of {len(self._trials)} trials are" if missing else "the study's end is"
        reason = trouble.splitlines()[0][:TROUBLE_LIMIT]
        return hidden(f"{what} not in MLflow ({shown(self._uri)}): {reason}", self._uri)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = "KILLED" if self.interrupted else _status(kind)
        self._writer.send({"do": "end", "status": status})
        try:
            self._drain()
        finally:
            self._writer.close()

    def _drain(self) -> None:
        begun = time.monotonic()
        while not self._writer.finished(wait_s=TICK_S):
            self._on_drain(self._writer.written, len(self._trials))
            if time.monotonic() - max(begun, self._writer.heard) > self._patience_s:
                self._writer.trouble = f"its writer said nothing for {self._patience_s:g} s"
                return
        self._on_drain(self._writer.written, len(self._trials))

    def _runners_up(self, best: int | None) -> list[Trial]:
        scenario = self._scenario
        kept = [
            trial
            for trial in self._trials.values()
            if trial.ending == "measured" and trial.number != best and scenario.sla.met_by(trial.measurement)
        ]
        kept.sort(key=lambda trial: scenario.usd_per_million(trial.measurement))
        return kept[:RUNNERS_UP]


class _Writer:
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


def experiment_name(scenario: Scenario) -> str:
    """The MLflow experiment that holds a scenario's studies."""
    return EXPERIMENTS + scenario.name


def default_tracking_uri() -> str:
    """Where runs go when nothing is said: MLFLOW_TRACKING_URI, else MLflow's default in this directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def open_command(uri: str) -> str:
    """What opens the runs: a command, or the address of a server. Shows no credentials."""
    scheme = _scheme(uri)
    if scheme in ("http", "https"):
        return shown(uri)
    if scheme == "databricks":
        return "the Experiments page of the Databricks workspace"
    if shown(uri) != uri:
        return 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    return shlex.join(["mlflow", "ui", "--backend-store-uri", uri])


def runs_location(uri: str, scenario: Scenario) -> str:
    """Where a scenario's runs are, in words. Shows no credentials."""
    return f"experiment {experiment_name(scenario)} in {sqlite_file(uri) or shown(uri)}"


def shown(uri: str) -> str:
    """A tracking address as people may see it: without credentials and query."""
    if _scheme(uri) == "sqlite":
        return uri
    return re.sub(r"//.*@", "//***@", uri).partition("?")[0]


def check_tracking_uri(uri: str) -> None:
    """Raises InputError for an address that MLflow cannot keep runs at, as far as is known without it."""
    scheme = _scheme(uri)
    if scheme in ("", "file"):
        path = unquote(uri.removeprefix("file:"))
        raise InputError(
            f"tracking URI {uri!r} is a folder or file, where MLflow no longer keeps runs; "
            f"use a database in it: {_database_for(path)}"
        )
    if scheme not in SCHEMES:
        plugins = {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
        if scheme not in plugins:
            raise UnknownNameError("tracking URI scheme", scheme, (*SCHEMES, *sorted(plugins)))
    if scheme in ("http", "https") and not uri.startswith(f"{scheme}://"):
        raise InputError(f"tracking URI {shown(uri)!r} names no host; it should look like {scheme}://host:5000")
    if scheme == "sqlite":
        _check_sqlite(uri)


def _check_sqlite(uri: str) -> None:
    path = sqlite_file(uri)
    if path is None:
        raise InputError(f"tracking URI {uri!r} names no file; it should look like {DEFAULT_URI}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an MLflow store; use {_database_for(str(path))}")
    nearest = path if path.exists() else next(folder for folder in path.parents if folder.exists())
    if not os.access(nearest, os.R_OK | os.W_OK) or (nearest != path and not nearest.is_dir()):
        raise InputError(f"{path}: cannot be an MLflow store: {nearest} is not writable")
    if path.exists() and path.stat().st_size:
        _check_database(path)


def _check_database(path: Path) -> None:
    with path.open("rb") as file:
        found = file.read(len(SQLITE_HEADER))
    if found != SQLITE_HEADER:
        raise InputError(f"{path}: is not an MLflow store: an SQLite file is expected, but it begins with {found!r}")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # in use just now; the writer will see
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: is not an MLflow store: SQLite cannot read it: {error}") from None
    if names and "experiments" not in names:
        tables = ", ".join(sorted(names))
        raise InputError(f"{path}: is not an MLflow store but another SQLite database, with the tables {tables}")


def _scheme(uri: str) -> str:
    if uri == "databricks":
        return uri
    scheme, colon, _ = uri.partition(":")
    return scheme.partition("+")[0] if colon else ""


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of an SQLite store; None for another, and where no file is named."""
    _, slashes, path = uri.partition("?")[0].partition(":///")
    if _scheme(uri) != "sqlite" or not slashes or path in ("", ":memory:"):
        return None
    return Path(path).absolute()


def absolute_uri(uri: str) -> str:
    path = sqlite_file(uri)
    if path is None:
        return uri
    _, experiment, query = uri.partition("?")
    return f"{uri.partition(':')[0]}:///{path}{experiment}{query}"


def _database_for(path: str) -> str:
    name = path if path.endswith((".db", ".sqlite", ".sqlite3")) else f"{path.rstrip('/')}/mlflow.db"
    return f"sqlite:///{name.removeprefix('//')}"


def _folder(uri: str) -> Path | None:
    """Where the writer works: beside an SQLite store, since that is where MLflow then puts the artifacts."""
    path = sqlite_file(uri)
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


def hidden(text: str, uri: str) -> str:
    """`text` without the credentials of `uri` and of the environment."""
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"://[^\s'\"/]*@", "://***@", text)


def _secrets(uri: str) -> set[str]:
    environment = {os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")}
    if _scheme(uri) == "sqlite":
        return environment - {""}
    credentials = re.search(r"//(.*)@", uri)
    user, colon, password = credentials.group(1).partition(":") if credentials else ("", "", "")
    query = {value for name, value in parse_qsl(urlsplit(uri).query) if name.lower() in SECRET_NAMES}
    plain = {password if colon else user} | query | environment
    return (plain | {unquote(secret) for secret in plain}) - {""}


def _git_commit() -> dict[str, str]:
    """The commit of the working directory's repository, if it is in one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"],  # noqa: S607 whichever git the user has
            capture_output=True,
            text=True,
            timeout=GRACE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"git_commit": found.stdout.strip()} if found.returncode == 0 else {}


def _user() -> dict[str, str]:
    name = os.environ.get("USER") or os.environ.get("LOGNAME")
    return {"mlflow.user": name} if name else {}


def _status(kind: type[BaseException] | None) -> Status:
    if kind is None:
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"


def config_yaml(config: ServingConfig) -> str:
    # A JSON scalar is a YAML scalar, and quoted where it must be.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in flatten(config).items())


def _load_curve(trial: Trial) -> str:
    levels = sorted(trial.levels, key=lambda level: level.load)
    return json.dumps([asdict(level) for level in levels], indent=1)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)

"""MlflowTracker: trials as runs in MLflow, written by a process of its own while the search goes on."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from search_spaces.config import ServingConfig
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Ending, Trial
from tuner.tracking.mlflow_view import view
from tuner.tracking.record import datasets, record, scenario_params
from tuner.tracking.store import (
    absolute_uri,
    check_tracking_uri,
    default_tracking_uri,
    experiment_name,
    hidden,
    shown,
    sqlite_file,
)
from tuner.tracking.writer_process import GRACE_S, WriterProcess

Status = Literal["FINISHED", "FAILED", "KILLED"]

# An infeasible trial went as it should; MLflow's UI shows KILLED in the same red as FAILED.
STATUS: Mapping[Ending, Status] = {"measured": "FINISHED", "failed": "FAILED", "infeasible": "FINISHED"}
RUNNERS_UP = 5
TICK_S = 0.1
TROUBLE_LIMIT = 400
NO_FILES: Mapping[str, str] = MappingProxyType({})


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
        self._writer = WriterProcess(self._uri)
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
        meeting = [
            trial
            for trial in self._trials.values()
            if trial.ending == "measured" and trial.number != best and scenario.sla.met_by(trial.measurement)
        ]
        meeting.sort(key=lambda trial: scenario.usd_per_million(trial.measurement))
        return meeting[:RUNNERS_UP]


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

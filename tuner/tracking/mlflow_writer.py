"""The process beside a search that writes its trials to MLflow: JSON lines in, JSON acknowledgements out.

It knows MLflow and nothing of servetune, so it waits for none of servetune's imports; mlflow's own take
seconds, which is why it is a process. Messages: open, trial, summary, end. Acknowledgements: ready, wrote,
trouble, ended.

A message that cannot be written waits, with all that follow it, and is tried again later; a trial is written
once by its number. The parent run ends as the `end` message says, or KILLED when the search is gone without.
"""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Message = dict[str, Any]

TICK_S = 1.0
PAUSE_S = 10.0
METRICS_PER_BATCH = 800  # MLflow takes 1,000 metrics, params and tags together
TAG_LIMIT = 5000
PARAM_LIMIT = 6000
NAME_LIMIT = 250
STUDY_TAG = "servetune.study"
TRIAL_TAG = "servetune.trial"
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
VIEW_TAG = "mlflow.sharedViewState."
CLASSIC_VIEW = {"mlflow.experimentKind": "custom_model_development"}


class Study:
    """The parent run of a study and the runs of its trials, found again where they exist."""

    def __init__(self, client: Any, message: Message) -> None:
        self._client = client
        self.experiment_id = self._experiment(message["experiment"])
        found = self._find(message["study"])
        self.run_id = found.info.run_id if found else self._create(message)
        self._written: dict[int, str] = {}
        self._begun: dict[int, str] = {}
        self._left_half_written: dict[int, str] = {}
        if found:
            self._take_up()
        known = found.data.params if found else {}
        params = {name: value for name, value in message["params"].items() if name not in known}
        _log(client, self.run_id, params=params, tags=message["tags"])
        self._files(self.run_id, message["files"])
        self._datasets(message["datasets"])

    def write_trial(self, message: Message) -> None:
        """One run. Safe to call again, after a failure or for a trial that is there."""
        number = message["number"]
        if number in self._written:
            return
        run_id = self._begun.get(number) or self._begin(message)
        at = message["end_ms"]
        metrics = [(name, value, at, 0) for name, value in message["metrics"].items()]
        metrics += [
            (f"curve.{name}", value, at, step)
            for step, level in enumerate(message["curve"])
            for name, value in level.items()
        ]
        _log(self._client, run_id, metrics=metrics, params=message["params"])
        self._client.set_terminated(run_id, message["status"], at)
        self._written[number] = run_id

    def write_summary(self, message: Message) -> None:
        """The verdict on the parent run, and files on it and on the runs of the trials that it names."""
        metrics = [(name, value, message["at_ms"], 0) for name, value in message["metrics"].items()]
        best = self._written.get(message["best"])
        tags = message["tags"] | ({"best_run": best} if best else {})
        _log(self._client, self.run_id, metrics=metrics, tags=tags | {NOTE_TAG: message["note"]})
        self._files(self.run_id, message["files"])
        for number, files in message["trial_files"]:
            self._files(self._written[number], files)
        self._share(message["view"])

    def end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)

    def _share(self, view: Mapping[str, Any]) -> None:
        """The study's view, under its run's id as the key."""
        mine = {**view, "searchFilter": view["searchFilter"].format(run_id=self.run_id)}
        self._client.set_experiment_tag(self.experiment_id, f"{VIEW_TAG}{self.run_id}", json.dumps(mine))

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(name, tags=CLASSIC_VIEW))

    def _find(self, study: str) -> Any:
        # Compared here, since a study's name may hold quotes, which filters cannot escape.
        runs = self._runs(f"tags.`{STUDY_TAG}` LIKE '%'")
        return next((run for run in runs if run.data.tags[STUDY_TAG] == _cut(study, TAG_LIMIT)), None)

    def _runs(self, query: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, message: Message) -> str:
        tags = {STUDY_TAG: _cut(message["study"], TAG_LIMIT)}
        run = self._client.create_run(self.experiment_id, run_name=_cut(message["study"], NAME_LIMIT), tags=tags)
        return str(run.info.run_id)

    def _take_up(self) -> None:
        """Learn which trials are there, whole or half."""
        self._client.update_run(self.run_id, status="RUNNING")
        for run in self._runs(f"tags.`{PARENT_TAG}` = '{self.run_id}'"):
            number = run.data.tags.get(TRIAL_TAG)
            if number is not None:
                half = run.info.status == "RUNNING"
                (self._left_half_written if half else self._written)[int(number)] = run.info.run_id

    def _begin(self, message: Message) -> str:
        number = message["number"]
        if number in self._left_half_written:
            self._client.delete_run(self._left_half_written.pop(number))
        tags = message["tags"] | {PARENT_TAG: self.run_id, TRIAL_TAG: str(number)}
        run = self._client.create_run(
            self.experiment_id,
            start_time=message["start_ms"],
            run_name=_cut(message["name"], NAME_LIMIT),
            tags={name: _cut(value, TAG_LIMIT) for name, value in tags.items()},
        )
        self._begun[number] = run.info.run_id
        return str(run.info.run_id)

    def _datasets(self, datasets: list[dict[str, str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        if datasets:
            inputs = [DatasetInput(Dataset(**fields), tags=[]) for fields in datasets]
            self._client.log_inputs(self.run_id, inputs)

    def _files(self, run_id: str, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            self._client.log_text(run_id, text, name)


class Writer:
    """Messages in the order in which they came, written as soon as the store takes them."""

    def __init__(self, uri: str, acknowledgements: int) -> None:
        self._uri = uri
        self._acknowledgements = acknowledgements
        self._waiting: deque[Message] = deque()
        self._retry_at = 0.0
        self._study: Study | None = None

    def take(self, message: Message) -> None:
        self._waiting.append(message)
        self.write_waiting()

    def write_waiting(self) -> None:
        """Write what waits, up to the first failure; nothing for a while after one."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        if time.monotonic() < self._retry_at:
            return
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        # ImportError: the database's driver is missing.
        except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError) as error:
            self._say(trouble=_cut(str(error).strip(), TAG_LIMIT) or type(error).__name__)
            self._retry_at = time.monotonic() + PAUSE_S

    def abandon(self) -> None:
        """Leave what waits, and the parent run KILLED."""
        if self._study is not None:
            self._study.end("KILLED")

    def end(self, status: str) -> None:
        """What waits, for as long as each attempt writes some of it, then the parent run's status."""
        if self._study is None and not self._waiting:
            return
        self._waiting.append({"do": "end", "status": status})
        before = len(self._waiting) + 1
        while len(self._waiting) < before:
            before = len(self._waiting)
            self._retry_at = 0.0
            self.write_waiting()

    def _write(self, message: Message) -> None:
        if message["do"] == "open":
            self._open(message)
            return
        assert self._study is not None, "`open` is the first message and waits until it is written"
        if message["do"] == "trial":
            self._study.write_trial(message)
            self._say(wrote=message["number"])
        elif message["do"] == "summary":
            self._study.write_summary(message)
        else:
            self._study.end(message["status"])
            self._say(ended=message["status"])

    def _open(self, message: Message) -> None:
        from mlflow.tracking import MlflowClient

        if message["sqlite_file"]:
            create_store(Path(message["sqlite_file"]))
        self._study = Study(MlflowClient(self._uri), message)
        self._say(ready={"experiment_id": self._study.experiment_id, "run_id": self._study.run_id})

    def _say(self, **acknowledgement: Any) -> None:
        with suppress(BrokenPipeError):  # the search is gone; its trials are written all the same
            os.write(self._acknowledgements, json.dumps(acknowledgement).encode() + b"\n")


def create_store(path: Path) -> None:
    """A fresh SQLite store at `path`, where there is none, appearing complete or not at all.

    MLflow creates its tables in a few hundred steps and cannot continue when it is killed between them.
    """
    from mlflow.tracking import MlflowClient

    if path.exists():
        return
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        seed, complete = Path(folder, "seed.db"), Path(folder, "complete.db")
        MlflowClient(f"sqlite:///{seed}").search_experiments(max_results=1)
        shutil.copyfile(seed, complete)  # MLflow keeps the seed open
        with suppress(OSError):  # another process was first; or there are no links here, then MLflow creates it
            os.link(complete, path)


def messages(descriptor: int, sender: int) -> Iterator[Message | None]:
    """Each message as it comes, None at every idle moment; until end of file or until the sender is gone.

    Both are watched: the pipe stays open as long as any fork of the sender lives.
    """
    pending = b""
    while True:
        readable, _, _ = select.select([descriptor], [], [], TICK_S)
        if not readable:
            if os.getppid() != sender:
                return
            yield None
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from map(json.loads, lines)


def _log(
    client: Any,
    run_id: str,
    *,
    metrics: list[tuple[str, float, int, int]] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    rows = [Metric(*row) for row in metrics or ()]
    client.log_batch(
        run_id,
        metrics=rows[:METRICS_PER_BATCH],
        params=[Param(name, _cut(value, PARAM_LIMIT)) for name, value in (params or {}).items()],
        tags=[RunTag(name, _cut(value, TAG_LIMIT)) for name, value in (tags or {}).items()],
        synchronous=True,
    )
    for start in range(METRICS_PER_BATCH, len(rows), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=rows[start : start + METRICS_PER_BATCH], synchronous=True)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> None:
    """Called with the search's process id; the store's address is in MLFLOW_TRACKING_URI."""
    signal.signal(signal.SIGTERM, _stop)
    acknowledgements = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # MLflow prints links to its pages
    writer = Writer(os.environ["MLFLOW_TRACKING_URI"], acknowledgements)
    ended = False
    try:
        writer.end(_pass_on(messages(sys.stdin.fileno(), sender=int(sys.argv[1])), writer))
        ended = True
    finally:
        if not ended:
            writer.abandon()
    os._exit(0)  # nothing is open, and tearing mlflow down takes another second


def _pass_on(incoming: Iterator[Message | None], writer: Writer) -> str:
    """The status that the search ended with."""
    for message in incoming:
        if message is None:
            writer.write_waiting()
        elif message["do"] == "end":
            return str(message["status"])
        else:
            writer.take(message)
    return "KILLED"


if __name__ == "__main__":
    main()

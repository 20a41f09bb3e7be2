"""The outbox: verdicts that wait on this disk until MLflow takes them."""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.retune.registry import Store, StoreError
from tuner.tracking.store import EXPERIMENTS

PENDING = ".unsent.json"


def keep(folder: Path, record: Mapping[str, Any]) -> Path:
    """Writes a record, whole or not at all, before anything is sent."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{record['experiment']}-{int(time.time() * 1000)}{PENDING}"
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
        json.dump(record, file)
    path = folder / name
    os.replace(file.name, path)  # noqa: PTH105 Path.replace on a string
    return path


def send(store: Store, folder: Path) -> tuple[int, str]:
    """Sends what waits, oldest first, each as a run; (how many went, why not all of them).

    A record is deleted once MLflow has all of it. One that went half is sent again, under the same tag, in place of
    the half.
    """
    sent = 0
    for path in sorted(folder.glob(f"*{PENDING}"), key=lambda path: path.stat().st_mtime):
        try:
            _send(store, path.name, json.loads(path.read_text(encoding="utf-8")))
        except StoreError as error:
            return sent, str(error)
        path.unlink()
        sent += 1
    return sent, ""


def _send(store: Store, key: str, record: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    where = store.experiment_id(EXPERIMENTS + record["experiment"])
    with store.errors():
        for half in store.client.search_runs([where], f"tags.outbox = '{key}'"):
            store.client.delete_run(half.info.run_id)
        run = store.client.create_run(where, run_name=record["name"], tags={"outbox": key})
        now = round(time.time() * 1000)
        store.client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in record["metrics"].items()],
            params=[Param(name, value) for name, value in record["params"].items()],
            tags=[RunTag(name, value) for name, value in record["tags"].items()],
            synchronous=True,
        )
    store.write_files(run.info.run_id, record["files"])
    with store.errors():
        store.client.set_terminated(run.info.run_id)

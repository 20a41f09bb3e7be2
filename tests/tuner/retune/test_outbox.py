"""The outbox: a verdict is on this disk until MLflow has all of it."""

import json

import pytest

from tuner.retune import outbox
from tuner.retune.registry import Store, StoreError

RECORD = {
    "experiment": "chat",
    "name": "retune trtllm 1 -> 2",
    "params": {"to": "2"},
    "metrics": {"effect": -0.1},
    "tags": {"servetune.retune": "upgrade"},
    "files": {"summary.md": "# chat\n"},
}


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path}/mlflow.db")


def runs(store):
    where = store.experiment_id("servetune/chat")
    return store.client.search_runs([where])


def test_what_was_kept_is_sent_once_and_then_gone(store, tmp_path):
    outbox.keep(tmp_path / "out", RECORD)
    assert outbox.send(store, tmp_path / "out") == (1, "")
    assert outbox.send(store, tmp_path / "out") == (0, "")
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["servetune.retune"] == "upgrade"
    assert store.read_files(run.info.run_id, "")["summary.md"] == "# chat\n"


def test_a_store_that_is_down_leaves_it_on_the_disk(store, tmp_path, monkeypatch):
    path = outbox.keep(tmp_path / "out", RECORD)

    def down(*_args, **_options):
        raise OSError("connection refused")

    monkeypatch.setattr(store.client, "create_run", down)
    sent, problem = outbox.send(store, tmp_path / "out")
    assert sent == 0
    assert "connection refused" in problem
    assert json.loads(path.read_text()) == RECORD
    monkeypatch.undo()
    assert outbox.send(store, tmp_path / "out") == (1, "")


def test_what_went_half_is_sent_again_whole_and_not_twice(store, tmp_path, monkeypatch):
    outbox.keep(tmp_path / "out", RECORD)

    def down(*_args):
        raise StoreError("the artifact store is full")

    monkeypatch.setattr(Store, "write_files", down)
    assert outbox.send(store, tmp_path / "out")[0] == 0
    monkeypatch.undo()
    assert outbox.send(store, tmp_path / "out") == (1, "")
    assert len(runs(store)) == 1


def test_an_empty_outbox_is_well(store, tmp_path):
    assert outbox.send(store, tmp_path / "nothing") == (0, "")

"""The champion: promoted whole, shown with its history, rolled back, and never half there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.config import Speculation
from search_spaces.errors import InputError
from search_spaces.knobs import flatten
from tuner.retune.champion import ALIAS, FOLDER, Champions, candidate, known_settings
from tuner.retune.change import space_changes
from tuner.retune.machine import read_machine
from tuner.retune.registry import Store, StoreError, model_name
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.search import measure_capacity
from tuner.search.session import Session

EXPERIMENT = """\
model: gpt-oss-120b
system: b200
gpus: 2
engines: [trtllm]
workload: {arrivals: closed_loop, input_tokens: 256, output_tokens: 64, requests: 50}
sla: {ttft_ms_p99: 1000, tpot_ms_p99: 20}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A candidate of a small experiment: its two trials are the engine's default with two batch limits."""
    path = tmp_path_factory.mktemp("experiment") / "chat.yaml"
    path.write_text(EXPERIMENT)
    session = Session(experiment=read_experiment(path))
    default = session.default_trial(session.scenario.space.engines[0])
    smaller = replace(default.config, batching=replace(default.config.batching, max_sequences=64))
    other = replace(measure_capacity(smaller, session.prior, session.runner, number=1))
    return candidate(session, default, study="chat-0badcafe", text=EXPERIMENT, others=[default, other])


@pytest.fixture(scope="module")
def seed_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    Store(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def store(seed_store, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(seed_store.read_bytes())
    return Store(f"sqlite:///{tmp_path}/mlflow.db")


def champions(store, **options):
    return Champions(store, user="ada", **options)


def test_an_experiment_without_a_champion_says_how_to_make_one(store):
    with pytest.raises(InputError, match=r"chat has no champion .*servetune champion promote chat"):
        champions(store).current("chat")


def test_a_promotion_comes_back_whole(store, found):
    promoted = champions(store).promote(found, why="first deployment")
    again = champions(store).current("chat")
    assert again == promoted
    assert again.trial == found.trial
    assert again.others == found.others
    assert again.asked == found.asked
    assert again.asked_experiment.model_dump() == found.asked_experiment.model_dump()
    assert (again.by, again.why, again.version, again.replaces) == ("ada", "first deployment", "1", "")


def test_the_files_to_serve_it_lie_with_its_run(store, found):
    promoted = champions(store).promote(found, why="")
    files = store.read_files(promoted.run_id, "champion")
    assert {"config.yaml", "commands.txt", "experiment.yaml", "champion.json", "others.jsonl"} == set(files)
    assert files["experiment.yaml"] == EXPERIMENT
    assert "trtllm-serve" in files["commands.txt"]
    deploy = store.read_files(promoted.run_id, "champion/deploy")
    assert "trtllm-serve" in "".join(text for name, text in deploy.items() if name.endswith(".sh"))


def test_a_champion_without_deployment_files_says_why(store, found):
    draft = Speculation(method="eagle3", draft_length=2)
    unpublished = replace(found.config, precision=replace(found.config.precision, weights="nvfp4"), speculation=draft)
    promoted = champions(store).promote(replace(found, trial=replace(found.trial, config=unpublished)), why="")
    assert "no checkpoint is published" in store.read_files(promoted.run_id, "champion/deploy")["none.txt"]


def test_a_second_promotion_keeps_the_first_within_reach(store, found):
    registry = champions(store)
    registry.promote(found, why="one")
    second = registry.promote(replace(found, trial=found.others[0]), why="two")
    assert (second.version, second.replaces) == ("2", "1")
    back = registry.rollback("chat", why="alarms")
    assert (back.version, back.trial) == ("1", found.trial)
    moves = registry.history("chat")
    assert [(move.action, move.before, move.after, move.why, move.done) for move in moves] == [
        ("rollback", "2", "1", "alarms", True),
        ("promote", "1", "2", "two", True),
        ("promote", "", "1", "one", True),
    ]


def test_a_rollback_may_name_its_version(store, found):
    registry = champions(store)
    for why in ("one", "two", "three"):
        registry.promote(found, why=why)
    assert registry.rollback("chat", why="", to="1").version == "1"


def test_a_rollback_beyond_the_first_says_what_there_is(store, found):
    registry = champions(store)
    registry.promote(found, why="")
    with pytest.raises(InputError, match="nothing before version 1; versions: 1"):
        registry.rollback("chat", why="")
    with pytest.raises(InputError, match="no version '7'; versions: 1"):
        registry.rollback("chat", why="", to="7")


def test_a_promotion_that_breaks_off_before_the_alias_moves_leaves_the_old_champion(store, found, monkeypatch):
    registry = champions(store)
    registry.promote(found, why="one")

    def down(*_args):
        raise OSError("connection reset")

    monkeypatch.setattr(store.client, "set_registered_model_alias", down)
    with pytest.raises(StoreError, match="connection reset"):
        registry.promote(replace(found, trial=found.others[0]), why="two")
    monkeypatch.undo()
    assert registry.current("chat").version == "1"
    assert not registry.history("chat")[0].done


def test_the_alias_is_what_mlflow_shows(store, found):
    champions(store).promote(found, why="")
    version = store.client.get_model_version_by_alias(model_name("chat"), ALIAS)
    assert version.tags["release"] == "trtllm 1.3.0rc20"
    assert version.tags["experiment_hash"] == "0badcafe"
    assert version.tags["trial"] == "0"


def test_experiments_with_a_champion_are_listed(store, found):
    registry = champions(store)
    assert registry.experiments() == []
    registry.promote(found, why="")
    assert registry.experiments() == ["chat"]


def test_settings_that_are_gone_are_named_and_new_ones_have_their_default(found):
    values = flatten(found.config)
    del values["batching.receive_interval"]
    config, removed = known_settings({**values, "layout.magic": 3})
    assert config == found.config
    assert removed == ("layout.magic=3",)


def test_a_name_that_mlflow_does_not_take_is_translated():
    assert model_name("a/b:c") == "servetune.a-b-c"


def test_a_server_that_is_down_is_one_line_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store("http://ada:hunter2@127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        champions(store).current("chat")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_the_driver_tells_what_the_machine_is():
    text = "NVIDIA B200, 580.95.05\nNVIDIA B200, 580.95.05\n"
    assert read_machine(text) == {"gpu": "2 x NVIDIA B200", "driver": "580.95.05"}
    assert read_machine("no devices were found\n") == {}


@pytest.mark.slow
def test_champions_live_in_an_mlflow_server_too(tmp_path, found):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        registry = champions(Store(f"http://127.0.0.1:{port}"))
        registry.promote(found, why="one")
        registry.promote(replace(found, trial=found.others[0]), why="two")
        assert registry.rollback("chat", why="").trial == found.trial
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url):
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def test_the_record_is_json_that_others_can_read(store, found):
    promoted = champions(store).promote(found, why="")
    facts = json.loads(store.read_files(promoted.run_id, "champion")["champion.json"])
    assert facts["config"] == flatten(found.config)
    assert facts["price"]["usd_per_gpu_hour in force"] == 3.6


# Earlier ones

WRITTEN = Path(__file__).parents[1] / "study" / "written_at_25bee3f" / "champion"


def test_a_champion_that_was_written_with_earlier_names_is_read_in_those_of_today(store, found):
    registry = champions(store)
    promoted = registry.promote(found, why="")
    store.write_files(promoted.run_id, {f"{FOLDER}/{path.name}": path.read_text() for path in WRITTEN.iterdir()})
    earlier = registry.current("chat")
    assert flatten(earlier.config)["prefill.replicas"] == 2
    assert str(earlier.config.speculation) == "eagle3:1"
    assert earlier.removed == ()
    assert earlier.dimensions["speculation.draft_length"] == [1, 3]
    assert earlier.dimensions["prefill.replicas"] == [1, 2]
    asked = Session(experiment=earlier.asked_experiment)
    assert asked.asked == earlier.asked
    assert space_changes(earlier.dimensions, asked.scenario.space.dimensions) == []

"""Trials in MLflow: real stores, a real writer process, and all that can go wrong with them."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from runners.workload.workload import Trace
from search_spaces.knobs import unflatten
from tests.tuner.tracking.trials import CONFIG, FAILED, INFEASIBLE, SCENARIO, measured, served
from tuner.tracking import mlflow_tracker, mlflow_writer, writer_process
from tuner.tracking.mlflow_tracker import MlflowTracker

REPOSITORY = Path(__file__).parents[3]
WORDY = replace(FAILED, number=10, detail="x" * 100_000)
STEEP = replace(measured(11), levels=tuple(served(1.0 + step) for step in range(600)), chosen=599)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_writer.create_store(path)
    return path


@pytest.fixture
def store(empty_store, tmp_path) -> Path:
    """A store of one's own, without the seconds that creating it takes."""
    return Path(shutil.copy(empty_store, tmp_path / "mlflow.db"))


@pytest.fixture(autouse=True)
def _only_what_a_test_says(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def client(store: Path | str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(store if isinstance(store, str) else f"sqlite:///{store}")


def runs(store: Path | str) -> list:
    mlflow = client(store)
    experiment = mlflow.get_experiment_by_name("servetune/chat")
    return list(mlflow.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def study_runs(store: Path | str) -> list:
    return [run for run in runs(store) if "servetune.study" in run.data.tags]


def trial_runs(store: Path | str) -> dict[int, object]:
    nested = [run for run in runs(store) if "mlflow.parentRunId" in run.data.tags]
    return {int(run.data.tags["servetune.trial"]): run for run in nested}


SECRET = "hunter2"


def tracking(store: Path, **options) -> MlflowTracker:
    return MlflowTracker(SCENARIO, study="chat-1", tracking_uri=f"sqlite:///{store}", **options)


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(tracker: MlflowTracker) -> int:
    return tracker._writer._process.pid


class Logged:
    """A study with every ending, summarised, and what was seen meanwhile."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.drained: list[tuple[int, int]] = []
        with tracking(
            store,
            experiment_text="model: gpt-oss-120b\n",
            experiment_path=Path("experiments/chat.yaml"),
            on_drain=lambda done, total: self.drained.append((done, total)),
        ) as tracker:
            self.pid = pid_of(tracker)
            for trial in (*map(measured, range(6)), FAILED, INFEASIBLE, WORDY, STEEP):
                tracker.log(trial)
            tracker.summarize(4, "# The verdict", {"flags.txt": "--tp 2"})
        self.problem = tracker.problem
        self.trials = trial_runs(store)
        (self.study,) = study_runs(store)

    def files(self, run, folder: str | None = None) -> list[str]:
        return [file.path for file in client(self.store).list_artifacts(run.info.run_id, folder)]

    def text(self, run, path: str) -> str:
        return Path(client(self.store).download_artifacts(run.info.run_id, path)).read_text()


@pytest.fixture(scope="module")
def logged(empty_store, tmp_path_factory) -> Logged:
    return Logged(Path(shutil.copy(empty_store, tmp_path_factory.mktemp("logged") / "mlflow.db")))


def test_each_trial_is_a_run_nested_in_the_run_of_its_study(logged):
    assert logged.problem is None
    assert logged.study.info.run_name == "chat-1"
    assert sorted(logged.trials) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert {run.data.tags["mlflow.parentRunId"] for run in logged.trials.values()} == {logged.study.info.run_id}


def test_runs_say_their_configuration_and_their_ending(logged):
    named = {number: (run.info.run_name, run.info.status) for number, run in logged.trials.items()}
    assert named[0] == (str(CONFIG), "FINISHED")
    assert named[8] == (str(CONFIG), "FAILED")
    assert named[9] == ("infeasible: memory", "FINISHED")
    assert logged.study.info.status == "FINISHED"


def test_a_run_lasts_as_long_as_its_trial(logged):
    info = logged.trials[0].info
    assert info.end_time - info.start_time == 1500


def test_a_trials_params_metrics_and_tags_can_be_read_back(logged):
    data = logged.trials[1].data
    assert data.params["layout.tensor"] == "2"
    assert data.metrics["usd_per_million_output_tokens"] == pytest.approx(2)
    assert data.metrics["ttft_ms_p99"] == pytest.approx(400)
    assert data.tags["ending"] == "measured"
    assert data.tags["sla_met"] == "true"
    assert logged.trials[5].data.tags["sla_met"] == "false"
    assert logged.trials[8].data.tags["detail"] == "exit 1\nout of memory"


def test_the_runs_can_be_filtered_as_people_would(logged):
    mlflow = client(logged.store)
    experiment = mlflow.get_experiment_by_name("servetune/chat").experiment_id
    found = mlflow.search_runs([experiment], "tags.ending = 'measured' and tags.sla_met = 'true'")
    assert len([run for run in found if "servetune.trial" in run.data.tags]) == 5


def test_the_objective_is_the_first_metric_that_the_store_returns(logged):
    assert next(iter(logged.trials[0].data.metrics)) == SCENARIO.objective


def test_the_load_curve_is_a_metric_with_steps(logged):
    history = client(logged.store).get_metric_history(logged.trials[1].info.run_id, "curve.load")
    assert [(point.step, point.value) for point in history] == [(0, 10), (1, 40)]


def test_the_studys_run_tells_experiment_and_verdict(logged):
    data = logged.study.data
    assert data.params["model"] == "gpt-oss-120b"
    assert data.params["sla.ttft_ms_p99"] == "1000"
    assert data.tags["mlflow.note.content"] == "# The verdict"
    assert data.tags["best_trial"] == "4"
    assert data.tags["best_run"] == logged.trials[4].info.run_id
    assert data.metrics["usd_per_million_output_tokens"] == pytest.approx(0.8)


def test_the_experiment_file_and_the_best_configuration_are_kept_with_the_study(logged):
    assert logged.text(logged.study, "chat.yaml") == "model: gpt-oss-120b\n"
    assert sorted(logged.files(logged.study, "best")) == ["best/config.yaml", "best/flags.txt"]
    from ruamel.yaml import YAML

    assert unflatten(YAML(typ="safe").load(logged.text(logged.study, "best/config.yaml"))) == CONFIG


def test_load_curves_are_kept_for_the_best_and_the_runners_up_that_meet_the_sla(logged):
    with_curve = [number for number, run in logged.trials.items() if logged.files(run)]
    assert sorted(with_curve) == [0, 1, 2, 3, 4]
    curve = json.loads(logged.text(logged.trials[4], "load_curve.json"))
    assert [level["load"] for level in curve] == [10, 100]


def test_artifacts_lie_beside_the_store(logged):
    kept = [path for path in (logged.store.parent / "mlruns").rglob("*") if path.is_file()]
    assert any(path.name == "load_curve.json" for path in kept)


def test_everything_is_drained_and_told(logged):
    done = [done for done, _ in logged.drained]
    assert done == sorted(done)
    assert logged.drained[-1] == (10, 10)


def test_no_process_outlives_the_tracker(logged):
    assert not is_alive(logged.pid)


def test_a_study_taken_up_again_writes_no_trial_twice(store):
    with tracking(store) as tracker:
        tracker.log(measured(0))
    with tracking(store) as tracker:
        tracker.log(measured(0))
        tracker.log(measured(1))
        tracker.summarize(1, "again")
    assert tracker.problem is None
    assert len(study_runs(store)) == 1
    assert len(runs(store)) == 3
    assert study_runs(store)[0].info.status == "FINISHED"


def test_another_study_of_the_same_scenario_has_a_run_of_its_own(store):
    quoted = 'it\'s "quoted"'
    for study in (quoted, "chat-2", quoted):
        with MlflowTracker(SCENARIO, study=study, tracking_uri=f"sqlite:///{store}") as tracker:
            tracker.log(measured(0))
        assert tracker.problem is None
    assert sorted(run.info.run_name for run in study_runs(store)) == ["chat-2", quoted]
    assert len(runs(store)) == 4


def test_a_trial_left_half_written_is_written_anew(store):
    with tracking(store):
        pass
    (study,) = study_runs(store)
    tags = {"mlflow.parentRunId": study.info.run_id, "servetune.trial": "0"}
    client(store).create_run(study.info.experiment_id, tags=tags)
    with tracking(store) as tracker:
        tracker.log(measured(0))
    assert len(runs(store)) == 2
    assert trial_runs(store)[0].info.status == "FINISHED"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")])
def test_a_search_that_is_left_early_has_its_trials_and_says_how_it_ended(store, error, status):
    tracker = tracking(store)
    with suppress(error), tracker:
        tracker.log(measured(0))
        raise error
    assert tracker.problem is None
    assert study_runs(store)[0].info.status == status
    assert trial_runs(store)[0].info.status == "FINISHED"


SEARCH = """
import os, pickle, sys, time
from pathlib import Path
from tuner.tracking.mlflow_tracker import MlflowTracker

scenario, trials = pickle.loads(Path(sys.argv[1]).read_bytes())
with MlflowTracker(scenario, study="killed", tracking_uri=sys.argv[2]) as tracker:
    for trial in trials:
        tracker.log(trial)
    while tracker._writer.written == 0:
        time.sleep(0.01)
    fork = os.fork()
    if fork == 0:
        time.sleep(600)
    print(tracker._writer._process.pid, fork, flush=True)
    time.sleep(600)
"""


def test_after_kill_9_every_trial_is_complete_and_no_process_is_left(store, tmp_path):
    experiment = tmp_path / "experiment.pickle"
    experiment.write_bytes(pickle.dumps((SCENARIO, [measured(number) for number in range(5)])))
    command = [sys.executable, "-c", SEARCH, str(experiment), f"sqlite:///{store}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as search:
        writer, fork = map(int, search.stdout.readline().split())
        search.kill()
        search.wait()
        try:  # the fork holds the writer's pipe open
            wait_until(lambda: not is_alive(writer))
        finally:
            os.kill(fork, signal.SIGKILL)
    assert {number: run.info.status for number, run in trial_runs(store).items()} == dict.fromkeys(range(5), "FINISHED")
    assert study_runs(store)[0].info.status == "KILLED"


def test_the_search_goes_on_when_the_writer_dies(store):
    with tracking(store) as tracker:
        tracker.log(measured(0))
        wait_until(lambda: tracker._writer.written == 1)
        os.kill(pid_of(tracker), signal.SIGKILL)
        tracker.log(measured(1))
    assert tracker.problem.startswith("1 of 2 trials are not in MLflow")
    assert "exit code -9" in tracker.problem


def test_a_writer_that_hangs_is_given_up_and_killed(store, monkeypatch):
    monkeypatch.setattr(writer_process, "GRACE_S", 0.2)
    with tracking(store, patience_s=0.2) as tracker:
        os.kill(pid_of(tracker), signal.SIGSTOP)
        tracker.log(measured(0))
    assert not is_alive(pid_of(tracker))
    assert "1 of 1 trials are not in MLflow" in tracker.problem
    assert "said nothing for 0.2 s" in tracker.problem


def test_ctrl_c_while_draining_leaves_no_process(store):
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tracking(store, on_drain=interrupt) as tracker:
        tracker.log(measured(0))
    assert not is_alive(pid_of(tracker))
    assert "not in MLflow" in tracker.problem


def test_a_server_that_is_not_there_does_not_stop_the_search(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://someone:{SECRET}@127.0.0.1:{free_port()}"
    with MlflowTracker(SCENARIO, study="chat-1", tracking_uri=uri) as tracker:
        tracker.log(measured(0))
    assert "1 of 1 trials are not in MLflow (http://***@127.0.0.1" in tracker.problem
    assert SECRET not in tracker.problem


def test_a_database_whose_driver_is_missing_does_not_stop_the_search():
    uri = f"mssql+nonesuch://someone:{SECRET}@localhost/mlflow?password={SECRET}"
    with MlflowTracker(SCENARIO, study="chat-1", tracking_uri=uri) as tracker:
        tracker.log(measured(0))
    assert "nonesuch" in tracker.problem
    assert SECRET not in tracker.problem


def test_a_trace_is_a_dataset_of_its_study(store):
    trace = Trace(
        path="traffic/azure.csv",
        arrival=np.array([0.0, 1.0, 4.0]),
        input_tokens=np.array([10, 20, 30]),
        output_tokens=np.array([1, 2, 3]),
    )
    scenario = replace(SCENARIO, workload=replace(SCENARIO.workload, shape="trace", trace=trace))
    with MlflowTracker(scenario, study="s", tracking_uri=f"sqlite:///{store}") as tracker:
        pass
    assert tracker.problem is None
    (run,) = runs(store)
    (dataset,) = (one.dataset for one in run.inputs.dataset_inputs)
    assert (dataset.name, json.loads(dataset.source)) == ("azure.csv", {"uri": "traffic/azure.csv"})
    assert json.loads(dataset.profile)["num_rows"] == 3


def test_what_could_not_be_written_is_written_once_the_store_is_there(empty_store, tmp_path, capfd):
    in_the_way = tmp_path / "folder"
    in_the_way.touch()
    store = in_the_way / "mlflow.db"
    read, write = os.pipe()
    writer = mlflow_writer.Writer(f"sqlite:///{store}", write)
    writer.take(
        {
            "do": "open",
            "sqlite_file": str(store),
            "experiment": "servetune/chat",
            "study": "s",
            "params": {},
            "tags": {},
            "files": {},
            "datasets": [],
        }
    )
    writer.take(
        {
            "do": "trial",
            "number": 7,
            "name": "seven",
            "params": {},
            "metrics": {},
            "curve": [],
            "tags": {},
            "status": "FINISHED",
            "start_ms": 1,
            "end_ms": 2,
        }
    )
    in_the_way.unlink()
    in_the_way.mkdir()
    shutil.copy(empty_store, store)
    writer.end("FINISHED")
    os.close(write)
    with os.fdopen(read) as said:
        assert [next(iter(json.loads(line))) for line in said] == ["trouble", "ready", "wrote", "ended"]
    assert list(trial_runs(store)) == [7]


def test_a_fresh_store_is_there_complete_or_not_at_all(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    def stop_half_way(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "search_experiments", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        mlflow_writer.create_store(tmp_path / "mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_created_in_a_folder_that_is_not_there_yet(tmp_path):
    store = tmp_path / "new" / "mlflow.db"
    with tracking(store) as tracker:
        tracker.log(measured(0))
    assert tracker.problem is None
    assert list(trial_runs(store)) == [0]
    assert list(store.parent.iterdir()) == [store]


def test_a_password_in_the_experiment_file_is_not_kept(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    text = f"tracking_uri: http://someone:{SECRET}@host:5000\n"
    with tracking(store, experiment_text=text) as tracker:
        tracker.log(measured(0))
    kept = [path for path in store.parent.rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert all(SECRET.encode() not in path.read_bytes() for path in kept)


def test_the_commit_is_a_tag_in_a_repository_and_absent_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mlflow_tracker._git_commit() == {}
    who = ["-c", "user.name=me", "-c", "user.email=me@here"]
    for arguments in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "Begin"]):
        subprocess.run(["git", *arguments], check=True)
    log = subprocess.run(["git", "log", "--format=%H"], check=True, capture_output=True, text=True)
    assert mlflow_tracker._git_commit() == {"git_commit": log.stdout.strip()}


def test_long_texts_are_cut_to_what_mlflow_takes(logged):
    assert len(logged.trials[10].data.tags["detail"]) == mlflow_writer.TAG_LIMIT


def test_a_curve_of_more_points_than_mlflow_takes_at_once_is_whole(logged):
    history = client(logged.store).get_metric_history(logged.trials[11].info.run_id, "curve.load")
    assert len(history) == len(STEEP.levels) == 600


def free_port() -> int:
    with closing(socket.socket()) as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


@contextmanager
def mlflow_server(store: Path) -> Iterator[str]:
    """A real server on loopback; its whole process group is dead afterwards."""
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{store}", "--host", "127.0.0.1", "--port", str(port)),
        ],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=store.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as page:
            return page.status == 200
    except (URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.slow
def test_a_real_server_takes_the_same_study(store):
    with mlflow_server(store) as uri:
        for _ in range(2):
            with MlflowTracker(SCENARIO, study="chat-1", tracking_uri=uri, experiment_text="a: 1\n") as tracker:
                for trial in (measured(0), FAILED, INFEASIBLE):
                    tracker.log(trial)
                tracker.summarize(0, "# The verdict")
            assert tracker.problem is None
        assert len(study_runs(uri)) == 1
        assert sorted(trial_runs(uri)) == [0, 8, 9]
        assert study_runs(uri)[0].info.status == "FINISHED"
        (best,) = client(uri).list_artifacts(trial_runs(uri)[0].info.run_id)
        assert best.path == "load_curve.json"

"""A retune as a job: what is kept when MLflow goes away in the middle, and sent when it is back."""

import pytest
from rich.console import Console

from tests.commands import EXPERIMENT
from tuner.retune import job as job_module
from tuner.retune import outbox
from tuner.retune.champion import Champions, candidate
from tuner.retune.job import UNSENT_TRIALS, Asked, Job, run_all, table, worst
from tuner.retune.registry import Store
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = folder / "chat.yaml"
    path.write_text(EXPERIMENT + "retune: {trials: 2}\n")
    session = Session(experiment=read_experiment(path))
    default = session.default_trial(session.scenario.space.engines[0])
    store = Store(f"sqlite:///{folder}/mlflow.db")
    made = candidate(session, default, study="chat-0badcafe", text=EXPERIMENT, others=[default])
    Champions(store).promote(made, why="")
    return folder


def job(folder, tmp_path, **asked):
    store = Store(f"sqlite:///{folder}/mlflow.db")
    where = {"studies": tmp_path / "studies", "output": tmp_path / "retunes"}
    return Job(store, Asked(engine="trtllm", to="1.3.0rc23", **where, **asked), Console(quiet=True))


def test_a_store_that_goes_away_promotes_nothing_and_is_sent_the_verdict_later(promoted, tmp_path, monkeypatch):
    this = job(promoted, tmp_path, promote=True)
    monkeypatch.setattr(outbox, "send", lambda *_: (0, "MLflow cannot be used: connection refused"))
    ended = this.run(str(promoted / "chat.yaml"))
    assert ended.outcome is not None
    assert this.champions.current("chat").version == "1"
    assert len(list((tmp_path / "retunes").glob(f"*{outbox.PENDING}"))) == 1
    monkeypatch.undo()
    assert this._send_what_waits()
    assert not list((tmp_path / "retunes").glob(f"*{outbox.PENDING}"))
    where = this.store.experiment_id("servetune/chat")
    verdicts = this.store.client.search_runs([where], "tags.`servetune.retune` LIKE '%'")
    assert verdicts[0].data.tags["servetune.retune"] == ended.outcome


def test_trials_that_mlflow_did_not_take_are_sent_from_their_study(promoted, tmp_path, monkeypatch):
    this = job(promoted, tmp_path, force=True)
    tracking = job_module._tracking

    def nowhere(session, study, store):
        return tracking(session, study, type("Down", (), {"uri": "http://127.0.0.1:9"}))

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(job_module, "_tracking", nowhere)
    this.run(str(promoted / "chat.yaml"))
    (note,) = (tmp_path / "retunes").glob(f"*{UNSENT_TRIALS}")
    monkeypatch.undo()
    study = note.name.removesuffix(UNSENT_TRIALS)
    assert this._send_what_waits()
    assert not note.exists()
    where = this.store.experiment_id("servetune/chat")
    assert this.store.trial_run(where, study, 0) is not None


def test_one_failure_does_not_stop_the_others(promoted, tmp_path):
    (promoted / "broken.yaml").write_text("model: [\n")
    names = [str(promoted / "broken.yaml"), str(promoted / "chat.yaml")]
    ended = run_all(job(promoted, tmp_path, force=True), names)
    assert [one.experiment for one in ended] == ["broken", "chat"]
    assert (ended[0].code, ended[1].outcome is not None) == (1, True)
    assert table(ended).row_count == 2


@pytest.mark.parametrize(("codes", "code"), [([], 0), ([0, 0], 0), ([0, 10], 10), ([10, 20, 0], 20), ([20, 1, 10], 1)])
def test_a_failure_comes_before_a_regression_before_a_switch(codes, code):
    assert worst(codes) == code

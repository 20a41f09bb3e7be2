"""Champion, retune and reprice as users run them: from an empty folder, by commands, output and exit codes."""

import json
import re
import shutil
import time

import pytest

from tests.commands import EXPERIMENT, run
from tuner.retune.lease import KEY
from tuner.retune.registry import Store

RELEASE = ("--engine", "trtllm", "--to", "1.3.0rc23")


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """A folder with an experiment, its study and its champion."""
    folder = tmp_path_factory.mktemp("promoted")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "chat.yaml").write_text(EXPERIMENT + "retune: {trials: 4}\n")
    assert run("tune", "experiments/chat.yaml", cwd=folder).code == 0
    done = run("champion", "promote", "chat", "--why", "first", cwd=folder)
    assert done.code == 0, done.errors
    return folder


@pytest.fixture
def folder(promoted, tmp_path):
    copy = tmp_path / "work"
    shutil.copytree(promoted, copy)
    return copy


def test_the_whole_way_keep_after_a_release_that_changed_nothing(folder):
    done = run("retune", "experiments/chat.yaml", *RELEASE, cwd=folder)
    assert done.code == 0, done.errors
    assert done.output.startswith("Keep: trtllm 1.3.0rc20 -> 1.3.0rc23 changes the champion's cost by 0.0 %")
    assert "Predictions, not measurements" in done.output
    summary = (folder / "retunes" / "chat-trtllm-1.3.0rc23.md").read_text()
    assert done.output.splitlines()[0] in summary
    assert (folder / "retunes" / "chat-trtllm-1.3.0rc23.html").exists()
    assert not list((folder / "retunes").glob("*.unsent.json"))
    again = run("retune", "experiments", *RELEASE, cwd=folder)
    assert again.code == 0
    assert "Not due (--force measures again), judged on" in again.output


def test_check_only_tells(folder):
    done = run("retune", "experiments/chat.yaml", "--check", "--no-index", cwd=folder)
    assert done.code == 10
    assert "release to judge trtllm 1.3.0rc23" in done.words
    assert "a retune is due" in done.words
    assert not (folder / "retunes").exists()


def test_an_experiment_that_changed_since_is_shown_as_a_diff(folder):
    path = folder / "experiments" / "chat.yaml"
    path.write_text(path.read_text().replace("ttft_ms_p99: 1000", "ttft_ms_p99: 800"))
    done = run("retune", "experiments/chat.yaml", "--check", "--no-index", cwd=folder)
    assert "sla.ttft_ms_p99: 1000 -> 800" in done.words


def test_no_champion_says_how_to_make_one(folder):
    shutil.copy(folder / "experiments" / "chat.yaml", folder / "experiments" / "other.yaml")
    done = run("retune", "experiments/other.yaml", *RELEASE, cwd=folder)
    assert done.code == 2
    assert "other has no champion" in done.errors
    assert "servetune champion promote other" in done.errors


def test_a_release_that_does_not_exist_lists_the_nearest_first(folder):
    done = run("retune", "experiments/chat.yaml", "--engine", "trtllm", "--to", "1.3.0rc24", cwd=folder)
    assert done.code == 2
    assert "unknown trtllm release '1.3.0rc24'; valid: 1.3.0rc23, 1.3.0rc20" in done.errors


def test_an_engine_that_the_experiment_does_not_use_is_refused(folder):
    done = run("retune", "experiments/chat.yaml", "--engine", "vllm", "--to", "0.27.0", cwd=folder)
    assert done.code == 2
    assert "valid: trtllm" in done.errors


def test_a_second_retune_leaves_while_the_first_is_at_it(folder):
    store = Store(f"sqlite:///{folder}/mlflow.db")
    lease = json.dumps({"who": "ci@build:7", "until": time.time() + 100})
    store.set_tag("servetune.chat", KEY + "other", lease)
    done = run("retune", "experiments/chat.yaml", *RELEASE, cwd=folder)
    assert done.code == 1
    assert "ci@build:7 is at it" in done.errors


def test_a_server_that_is_down_measures_and_promotes_nothing(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://127.0.0.1:9"
    done = run("retune", "experiments/chat.yaml", *RELEASE, "--tracking-uri", uri, cwd=folder)
    assert done.code == 1
    assert "MLflow at http://127.0.0.1:9 cannot be used" in done.errors
    assert "Traceback" not in done.errors


def test_a_folder_goes_on_after_a_failure_and_ends_with_one_table(folder):
    (folder / "experiments" / "broken.yaml").write_text("model: gpt-oss-120b\n")
    done = run("retune", "experiments", *RELEASE, cwd=folder)
    assert done.code == 1
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.startswith(("chat", "broken"))}
    assert re.match(r"broken +1 +Failed: ", lines["broken"])
    assert re.match(r"chat +0 +Keep: ", lines["chat"])


def test_a_changed_slo_may_switch_and_promote(folder):
    path = folder / "experiments" / "chat.yaml"
    path.write_text(path.read_text().replace("tpot_ms_p99: 20", "tpot_ms_p99: 3"))
    done = run("retune", "experiments/chat.yaml", "--promote", cwd=folder)
    assert done.code in (0, 10), done.errors
    shown = run("champion", "show", "chat", cwd=folder)
    assert ("version             2" in shown.output) == (done.code == 10)


def test_a_champion_that_is_rolled_back_is_what_the_next_command_sees(folder):
    assert run("champion", "promote", "chat", "--why", "again", cwd=folder).code == 0
    done = run("champion", "rollback", "chat", "--why", "alarms", cwd=folder)
    assert done.code == 0
    assert "Rolled back from version 2 to version 1" in done.output
    assert "alarms" in done.output


def test_reprice_scores_what_was_measured(folder):
    done = run("reprice", "chat", "--price", "1.8", cwd=folder)
    assert done.code == 0, done.errors
    assert "$1.8 a GPU-hour" in done.output
    assert "What was measured suffices" in done.output
    missed = run("reprice", "--sla", "tpot_ms_p99=0.01", cwd=folder)
    assert missed.code == 3


def test_a_schedule_is_printed_without_reading_anything(tmp_path):
    done = run("retune", "experiments/", "--promote", "--emit", "cron", "--schedule", "0 3 * * 1", cwd=tmp_path)
    assert done.code == 0
    assert done.output.splitlines()[1] == "0 3 * * 1 cd $HOME/servetune && servetune retune experiments/ --promote"
    wrong = run("retune", "experiments/", "--emit", "cron", "--schedule", "hourly", cwd=tmp_path)
    assert wrong.code == 2
    assert "five fields are needed" in wrong.errors


def test_help_documents_every_exit_code(tmp_path):
    said = run("retune", "--help", cwd=tmp_path).words
    for word in ("0 keep", "10 a switch", "20 a regression", "1 failed", "2 unusable input"):
        assert word in said


def test_scripts_read_the_same_as_json(folder):
    shown = run("champion", "show", "chat", "--json", cwd=folder)
    champion = json.loads(shown.output)
    assert (shown.code, champion["version"], champion["sla_met"]) == (0, "1", True)
    assert [move["why"] for move in champion["history"]] == ["first"]
    due = run("retune", "experiments", "--check", "--no-index", "--json", cwd=folder)
    assert due.code == 10
    assert [(one["due"], one["exit_code"]) for one in json.loads(due.output)] == [(True, 10)]
    done = run("retune", "experiments/chat.yaml", *RELEASE, "--json", cwd=folder)
    verdict = json.loads(done.output)
    assert (done.code, verdict["outcome"], verdict["exit_code"]) == (0, "keep", 0)
    assert verdict["before"]["config"] == champion["config"]
    assert verdict["effect"]["pairs"] >= 1

"""The command as users run it: a process, its output and its exit code."""

import json
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import COMMAND, EXPERIMENT, Result, refused, run, started
from tuner.search.trial import RECORD

# Enough configurations and requests for a search of many seconds.
LONG = (
    EXPERIMENT.replace("trials: 3", "trials: 5000")
    .replace("requests: 50", "requests: 5000")
    .replace("[64, 128]", "[8, 16, 32, 64, 128, 256, 512]")
    .replace("draft_length: [1]", "draft_length: [1, 2, 3]")
    .replace("[8192]", "[4096, 8192, 16384]")
)


def records(journal: Path) -> list[dict]:
    """The trials that a study file holds."""
    if not journal.exists():
        return []
    entries = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    found = [entry["user_attr"][RECORD] for entry in entries if RECORD in entry.get("user_attr", {})]
    return [json.loads(record) for record in found]


def wait_for_trials(journal: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(records(journal)) < count:
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "small.yaml").write_text(EXPERIMENT)
    (path / "long.yaml").write_text(LONG)
    return path


@pytest.fixture(scope="module")
def tuned(folder) -> Result:
    return run("tune", "small.yaml", "--no-track", cwd=folder)


def test_tune_answers_with_the_verdict_and_what_to_do_next(tuned):
    assert tuned.code == 0, tuned.errors
    assert tuned.errors == ""
    for part in ("Verdict: SLA met", "Start it", "Runners-up", "How 3 trials ended", "met the SLA 3"):
        assert part in tuned.words
    assert tuned.next("Study").startswith("studies/small-")


def test_a_pipe_gets_no_colours_and_no_progress_bar(tuned):
    assert "\x1b" not in tuned.output + tuned.errors
    assert "\r" not in tuned.output
    assert "Searching" not in tuned.output


def test_tuning_again_has_nothing_left_to_run_and_gives_the_same_answer(tuned, folder):
    journal = folder / tuned.next("Study")
    before = journal.read_bytes()
    again = run("tune", "small.yaml", "--no-track", cwd=folder)
    assert again.code == 0, again.errors
    assert again.next("Nothing left to run").startswith("the study had 3 trials already")
    assert "Nothing left to run" not in tuned.output
    assert [line for line in again.output.splitlines() if not line.startswith("Nothing")] == tuned.output.splitlines()
    assert journal.read_bytes() == before


def test_more_trials_go_on_until_all_was_tried(tuned, folder):
    copy = folder / "more"
    copy.mkdir()
    (copy / "s.journal").write_bytes(
        (folder / tuned.next("Study")).read_bytes().replace(Path(tuned.next("Study")).stem.encode(), b"s")
    )
    result = run("tune", "small.yaml", "--no-track", "--studies", "more", "--study", "s", "--trials", 99, cwd=folder)
    assert result.code == 0, result.errors
    assert [record["number"] for record in records(copy / "s.journal")] == [0, 1, 2, 3]
    assert "How 4 trials ended" in result.words


def test_another_sampler_goes_on_with_the_study_until_all_was_tried(folder):
    (folder / "sampled.yaml").write_text(EXPERIMENT.replace("trials: 3", "trials: 2"))
    first = run("tune", "sampled.yaml", "--no-track", "--sampler", "random", cwd=folder)
    assert first.code == 0, first.errors
    again = run("tune", "sampled.yaml", "--no-track", "--sampler", "tpe", "--trials", "99", cwd=folder)
    assert again.code == 0, again.errors
    assert again.next("Study") == first.next("Study")
    tried = records(folder / first.next("Study"))
    assert len(tried) == len({json.dumps(trial["config"]) for trial in tried}) == 4


def test_the_next_command_gives_the_figures_of_the_best(tuned, folder):
    program, *arguments = shlex.split(tuned.next("Next, try a change"))
    assert program == "servetune"
    again = run(*arguments, cwd=folder)
    assert again.code == 0, again.errors
    cost = re.search(r"(\$\S+) for a million output tokens", tuned.words).group(1)
    assert f"$/M output tokens {cost} " in again.words


def test_an_sla_that_cannot_be_kept_exits_with_3_and_says_so_first(folder):
    (folder / "impossible.yaml").write_text(EXPERIMENT.replace("tpot_ms_p99: 20", "tpot_ms_p99: 0.5"))
    result = run("tune", "impossible.yaml", "--no-track", "--trials", 2, cwd=folder)
    assert result.code == 3, result.errors
    assert "No configuration meets the SLA: TPOT p99 <= 0.5 ms binds." in result.words
    assert "This SLA could be met: ttft_ms_p99: 1000, tpot_ms_p99: " in result.words


def test_a_model_that_does_not_fit_exits_with_3_and_says_why(folder):
    experiment = re.sub(r"  (precision|speculation).*\n", "", EXPERIMENT).replace("gpt-oss-120b", "deepseek-r1")
    (folder / "large.yaml").write_text(experiment.replace("gpus: 2", "gpus: 1"))
    result = run("tune", "large.yaml", "--no-track", cwd=folder)
    assert result.code == 3, result.errors
    assert "No configuration could be served." in result.words
    assert re.search(r"memory \d+", result.words)


def test_the_estimated_runner_spends_no_trial_on_what_it_cannot_estimate(folder):
    modes = "mode: [aggregated, disaggregated]"
    experiment = EXPERIMENT.replace("mode: [aggregated]", modes)
    (folder / "estimated.yaml").write_text(experiment)
    result = run("tune", "estimated.yaml", "--runner", "estimated", "--no-track", cwd=folder)
    assert result.code == 0, result.errors
    assert "met the SLA 3" in result.words
    assert "every percentile shown is the mean" in result.words
    (folder / "estimated.yaml").write_text(experiment.replace(modes, "mode: [disaggregated]"))
    said = refused(run("tune", "estimated.yaml", "--runner", "estimated", "--no-track", cwd=folder))
    assert said.startswith("servetune: estimated.yaml: runner: estimated takes mode aggregated only")
    said = refused(run("tune", "estimated.yaml", "--runner", "simulatd", cwd=folder))
    assert "unknown runner" in said
    assert "simulated" in said


def test_runs_are_kept_in_mlflow_where_the_command_says(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    result = run("tune", "small.yaml", cwd=tmp_path)
    assert result.code == 0, result.errors
    assert result.next("Open them") == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        statuses = [status for (status,) in store.execute("SELECT status FROM runs")]
    assert statuses == ["FINISHED"] * 4  # the study and its three trials


def test_ctrl_c_shows_what_was_found_and_the_same_command_goes_on(folder):
    journal = folder / "studies" / "stopped.journal"
    command = ("tune", "long.yaml", "--no-track", "--study", "stopped")
    with started(*command, cwd=folder) as process:
        wait_for_trials(journal, 3)
        second = run(*command, cwd=folder)
        assert "stopped.journal: another process is tuning this study" in refused(second)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    stopped = Result(process.returncode, output, errors)
    assert stopped.code == 130, errors
    assert "Verdict" in stopped.words
    assert "Traceback" not in errors
    finished = records(journal)
    assert f"How {len(finished)} trials ended" in stopped.words

    program, *arguments = shlex.split(stopped.next("Go on"))
    assert program == "servetune"
    again = run(*arguments, "--trials", len(finished) + 2, cwd=folder)
    assert again.code == 0, again.errors
    assert records(journal)[: len(finished)] == finished
    assert len(records(journal)) == len(finished) + 2


def test_after_kill_9_the_same_command_goes_on_at_once_with_everything_finished(folder):
    journal = folder / "studies" / "killed.journal"
    command = ("tune", "long.yaml", "--no-track", "--study", "killed")
    with started(*command, cwd=folder) as process:
        wait_for_trials(journal, 3)
        process.kill()
        process.wait()
    finished = records(journal)
    again = run(*command, "--trials", len(finished) + 1, cwd=folder)
    assert again.code == 0, again.errors
    assert records(journal)[: len(finished)] == finished
    assert f"How {len(finished) + 1} trials ended" in again.words


def test_simulate_evaluates_one_configuration_with_changed_settings(folder):
    result = run("simulate", "small.yaml", "--set", "layout.tensor=2", "--set", "batching.max_sequences=32", cwd=folder)
    assert result.code == 0, result.errors
    for part in ("1 worker of 2 GPUs (tp2", "at most 32 sequences", "TPOT p99", "$/M output tokens", "GPUs 2"):
        assert part in result.words


def test_simulate_takes_a_load_and_exits_with_3_where_it_breaks_the_sla(folder):
    result = run("simulate", "small.yaml", "--load", 4000, cwd=folder)
    assert result.code == 3, result.errors
    assert "load (requests in flight) 4,000" in result.words


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ("models", "deepseek-ai/DeepSeek-R1"),
        ("systems", "GB200 NVL72"),
        ("engines", "1.3.0rc20, 1.3.0rc23"),
        ("experiments", "tpot_ms_p99: 20"),
    ],
)
def test_list_tells_what_is_known(folder, what, part):
    result = run("list", what, cwd=folder)
    assert result.code == 0, result.errors
    assert part in result.words
    assert "\x1b" not in result.output


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    line = shlex.join([*COMMAND, "list", "models"])
    done = subprocess.run(f"{line} | head -c 1", shell=True, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


BAD_INPUT = {
    "an unknown experiment": (["tune", "gpt-oss-120b-b200-chta"], "valid experiments: gpt-oss-120b-b200-chat, "),
    "a file that is not there": (["tune", "nowhere/small.yaml"], "no file and no experiment 'nowhere/small.yaml'"),
    "a folder for a file": (["tune", "."], ".: is a folder"),
    "an unknown command": (["tuen", "small.yaml"], "'tune'"),
    "an unknown option": (["tune", "small.yaml", "--trails", "3"], "--trials"),
    "no experiment": (["tune"], "Missing argument"),
    "no trials": (["tune", "small.yaml", "--trials", "0"], "greater than or equal to 1"),
    "less than no trials": (["tune", "small.yaml", "--trials", "-1"], "greater than or equal to 1"),
    "trials that are no number": (["tune", "small.yaml", "--trials", "many"], "Invalid value for '--trials'"),
    "a study name that no file can have": (["tune", "small.yaml", "--study", "x" * 300], "File name too long"),
    "a folder that is a file": (["tune", "small.yaml", "--studies", "small.yaml"], "no study can be kept there"),
    "an unknown sampler": (["tune", "small.yaml", "--sampler", "cmaes"], "unknown sampler 'cmaes'; valid: "),
    "an MLflow address that is none": (["tune", "small.yaml", "--tracking-uri", "sqlte:///x.db"], "sqlite"),
    "an unknown setting": (["simulate", "small.yaml", "--set", "layout.tensr=2"], "valid: layout.tensor, "),
    "a layout that does not divide": (["simulate", "small.yaml", "--set", "layout.tensor=3"], "does not divide"),
    "more GPUs than there are": (["simulate", "small.yaml", "--set", "layout.replicas=3"], "GPUs, 2 are there"),
    "no load": (["simulate", "small.yaml", "--load", "0"], "greater than or equal to 0.001"),
    "a load that is no number": (["simulate", "small.yaml", "--load", "nan"], "Invalid value for '--load'"),
    "a load without end": (["simulate", "small.yaml", "--load", "inf"], "less than or equal to 1000000"),
    "an unknown list": (["list", "modles"], "valid: models, "),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_exits_with_2_and_says_what_is_valid(folder, case):
    arguments, part = BAD_INPUT[case]
    assert part in refused(run(*arguments, cwd=folder))


@pytest.mark.parametrize(
    ("line", "instead", "part"),
    [
        ("gpus: 2", "gpus: 0", "gpus: `gpus >= 1` must hold, but got 0"),
        ("gpus: 2", "gpus: 80", "gpus: `gpus <= 8` must hold on b200, but got 80"),
        ("trials: 3", "trials: 0", "budget.trials: `trials >= 1` must hold, but got 0"),
        ("tpot_ms_p99: 20", "tpot_ms_p98: 20", "unknown SLO 'tpot_ms_p98'; valid: tpot_ms_p9"),
        ("layout.tensor: [1]", "layout.tensor: [3]", "unknown value of layout.tensor '3'; valid: 2, 1"),
        ("layout.tensor: [1]", "layout.tensr: [1]", "unknown setting 'layout.tensr'; valid: layout.tensor"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_file_and_key(folder, line, instead, part):
    (folder / "wrong.yaml").write_text(EXPERIMENT.replace(line, instead))
    said = refused(run("tune", "wrong.yaml", "--no-track", cwd=folder))
    assert said.startswith("servetune: wrong.yaml: ")
    assert part in said


def test_a_corrupt_study_is_named_and_left_as_it_is(folder):
    journal = folder / "studies" / "broken.journal"
    journal.parent.mkdir(exist_ok=True)
    journal.write_bytes(b"PK\x03\x04 no journal\n")
    said = refused(run("tune", "small.yaml", "--study", "broken", cwd=folder))
    assert said.startswith("servetune: studies/broken.journal: is not a readable study journal")
    assert journal.read_bytes() == b"PK\x03\x04 no journal\n"
    assert not (folder / "mlflow.db").exists()


def test_a_study_of_another_experiment_is_refused_with_what_differs(tuned, folder):
    (folder / "other.yaml").write_text(EXPERIMENT.replace("tpot_ms_p99: 20", "tpot_ms_p99: 10"))
    study = Path(tuned.next("Study")).stem
    said = refused(run("tune", "other.yaml", "--no-track", "--study", study, cwd=folder))
    assert "this study is of another experiment (other: sla.tpot_ms_p99)" in said


def test_help_names_every_command_and_the_exit_codes(folder):
    result = run("--help", cwd=folder)
    assert result.code == 0
    for part in ("tune", "simulate", "list", "Exit codes"):
        assert part in result.output
    assert run("-h", cwd=folder).output == result.output


@pytest.mark.parametrize("command", ["tune", "simulate", "list"])
def test_every_command_has_help(folder, command):
    result = run(command, "--help", cwd=folder)
    assert result.code == 0
    assert f"servetune {command}" in result.output or "Usage" in result.output


def test_the_command_starts_without_what_is_slow_to_import():
    code = """
        import sys
        import tuner.cli
        slow = {"mlflow", "optuna", "pandas", "aiconfigurator", "aiconfigurator_core", "numpy", "pydantic", "plotly"}
        print(sorted(slow & set(sys.modules)))
    """
    lines = "\n".join(line.strip() for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

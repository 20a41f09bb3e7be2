"""`servetune tune` over recordings, as users run it: what is printed, and with which exit code it ends."""

import pytest
from typer.testing import CliRunner

from search_spaces.errors import InputError
from tuner.cli import app
from tuner.cli.arguments import EXIT_SLA_MISSED
from tuner.scenario.recorded import experiment_text, recorded_cases

NAME = "llama-3.1-8b-h200-4000-100"


@pytest.fixture
def tune(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(experiment, *options):
        return CliRunner().invoke(app, ["tune", experiment, "--no-track", *options])

    return run


def experiment(folder, **lines):
    text = experiment_text(recorded_cases()[NAME])
    kept = [line for line in text.splitlines() if line.partition(":")[0] not in lines]
    path = folder / "mine.yaml"
    path.write_text("\n".join([*kept, *(f"{key}: {value}" for key, value in lines.items())]), encoding="utf-8")
    return str(path)


def test_a_recorded_scenario_is_replayed_by_its_name(tune, tmp_path):
    result = tune(f"recorded/{NAME}", "--trials", "3")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Replay of 8 published runs of 8 configurations" in words
    assert "Replayed 3 of 8 configurations" in words
    assert "GPU-hours" in words
    assert "4 configurations could not be predicted, so tried last" in words
    assert "of the best recorded run" in words
    assert "Measured row: " in words
    assert "measured mean" in words
    assert "Prediction" not in words
    assert list((tmp_path / "studies").glob(f"{NAME}-*.journal"))


def test_a_replay_goes_on_where_it_stopped(tune):
    assert tune(f"recorded/{NAME}", "--trials", "2").exit_code == 0
    words = " ".join(tune(f"recorded/{NAME}", "--trials", "4").output.split())
    assert "Replayed 4 of 8 configurations" in words


def test_slos_on_percentiles_are_judged_on_the_mean_and_said_to_be(tune, tmp_path):
    mine = experiment(tmp_path, sla="{ttft_ms_p99: 2000, tpot_ms_mean: 30}")
    result = tune(mine)
    assert result.exit_code == 0
    assert "The rows hold means only: ttft_ms_p99 judged on the mean" in " ".join(result.output.split())


def test_means_need_no_warning(tune):
    assert "means only" not in tune(f"recorded/{NAME}").output


def test_an_sla_that_no_recorded_run_keeps_is_told(tune, tmp_path):
    result = tune(experiment(tmp_path, sla="{ttft_ms_mean: 1}"))
    assert result.exit_code == EXIT_SLA_MISSED
    assert "No recorded run meets this SLA" in " ".join(result.output.split())


def test_the_runner_can_be_named_on_the_command_line(tune, tmp_path):
    mine = experiment(tmp_path, runner="simulated")
    assert "Replay of 8 published runs" in tune(mine, "--runner", "recorded").output


def test_a_scenario_that_was_not_recorded_is_an_input_error(tune, tmp_path):
    result = tune(experiment(tmp_path, system="b200"))
    assert isinstance(result.exception, InputError)
    assert f"nearest: {NAME.rpartition('-h200')[0]} on h200 with" in str(result.exception)


def test_a_recorded_experiment_can_be_simulated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["simulate", f"recorded/{NAME}", "--set", "layout.tensor=1", "--load", "4"])
    assert result.exit_code in (0, EXIT_SLA_MISSED), result.output
    assert "Prediction, not a measurement" in " ".join(result.output.split())

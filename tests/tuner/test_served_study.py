"""A study on servers that are real processes, from the command line: what is kept, and what ends it."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search_spaces.errors import InputError
from tests.own_facts import MODEL, SYSTEM
from tuner.cli import app

FAKE = Path(__file__).parents[1] / "runners" / "served" / "fake_server.py"
EXPERIMENT = """\
model: model.yaml
system: system.yaml
gpus: 1
engines: [vllm@1.2.3]
workload: {{arrivals: closed_loop, input_tokens: 16, output_tokens: {{low: 8, high: 12}}, requests: 50}}
sla: {{ttft_ms_p95: 60000}}
price: {{usd_per_gpu_hour: 3600, all_in_watts_per_gpu: 100}}
objective: usd_per_million_output_tokens
runner: served
space: {{batching.max_sequences: [8, 16], batching.max_batched_tokens: [2048], precision.kv_cache: [bf16]}}
serve:
  python: {python}
  device: cpu
  variants: {{sound: [], broken: [--fail, {how}]}}
  start_min: 0.5
  load_min: 1
  logs: {logs}
budget: {budget}
"""


@pytest.fixture
def tune(tmp_path):
    """Runs `servetune tune` on the stand-in, of which one variant fails in the given way; the result."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"os.execv({sys.executable!r}, [sys.executable, {str(FAKE)!r}, *sys.argv[3:]])\n"
    )
    python.chmod(0o755)
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "system.yaml").write_text(SYSTEM)

    def run(how, *, python=python, budget="{trials: 8}"):
        text = EXPERIMENT.format(python=python, how=how, logs=tmp_path / "logs", budget=budget)
        (tmp_path / "experiment.yaml").write_text(text)
        arguments = ["tune", str(tmp_path / "experiment.yaml"), "--studies", str(tmp_path / "studies"), "--no-track"]
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", **os.environ})

    return run


def test_what_serves_is_found_and_what_does_not_is_named(tune, tmp_path):
    result = tune("combination")
    assert result.exit_code == 0, result.output
    assert re.search(r"met the SLA +2\b", result.output)
    assert re.search(r"failed: invalid combination +2\b", result.output)
    assert "variant 'sound'" in result.output
    assert len(list((tmp_path / "logs" / "experiment").iterdir())) == 4


def test_a_budget_in_dollars_counts_every_second_of_every_server(tune, tmp_path):
    # A dollar for each second: the first trial, its start included, spends more than that.
    result = tune("combination", budget="{trials: 8, usd: 0.01}")
    assert len(list((tmp_path / "logs" / "experiment").iterdir())) == 1, result.output


def test_one_configuration_is_measured_for_real(tune, tmp_path):
    tune("combination", budget="{trials: 1}")
    experiment = str(tmp_path / "experiment.yaml")
    settings = ["--set", "batching.max_sequences=8", "--set", "batching.max_batched_tokens=2048"]
    sound = CliRunner().invoke(
        app, ["measure", experiment, *settings, "--set", "variant=sound", "--load", "4", "--json"]
    )
    assert sound.exit_code == 0, sound.output
    assert json.loads(sound.stdout)["source"] == "measured"
    broken = CliRunner().invoke(app, ["measure", experiment, *settings, "--set", "variant=broken", "--load", "4"])
    assert broken.exit_code == 1
    assert "invalid combination: exit 1 while starting" in broken.stderr


def test_options_of_a_running_server_do_not_go_with_one_that_is_started(tune, tmp_path):
    with pytest.raises(InputError, match="without --url only"):
        CliRunner().invoke(app, ["measure", "any", "--gpus", "2"], catch_exceptions=False)
    with pytest.raises(InputError, match="--set changes what is started here"):
        CliRunner().invoke(app, ["measure", "any", "--url", "http://x", "--set", "a=b"], catch_exceptions=False)


def test_an_engine_that_is_not_installed_ends_the_study_after_three_trials(tune, tmp_path):
    result = tune("flag", python=tmp_path / "nowhere" / "python")
    assert result.exit_code != 0
    assert "engine not installed" in result.output
    assert len(list((tmp_path / "logs" / "experiment").iterdir())) == 3

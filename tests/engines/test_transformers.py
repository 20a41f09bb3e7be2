"""An engine of a user's own that really serves: `transformers serve`, described by a folder of data.

It has no /metrics, says no release, and can be made to keep to no lengths: it is measured with what it returns.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from runners.measurement import NO_METRICS
from tuner.cli import app

pytestmark = pytest.mark.engine

FOLDER = Path(__file__).parent / "transformers-serve"
BLOCKS = {4: 32, 16: 128}
"""Of the KV cache, as the folder spells `batching.max_sequences`."""


ENDS = [1, *range(300, 700)]
"""Tokens that end an answer: so many of the 2,048 that nearly all end before their limit."""


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """The tiny model, which ends answers of its own accord."""
    copied = shutil.copytree(tiny / "checkpoint", tmp_path / "checkpoint")
    path = copied / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ENDS}))
    return copied


@pytest.fixture
def experiment(tiny, checkpoint, vllm_python, tmp_path):
    """An experiment on the tiny model, with the engine's folder beside it."""
    shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    asked = {
        "model": str(tiny / "model.yaml"),
        "system": str(tiny / "system.yaml"),
        "gpus": 1,
        "engines": [f"./{FOLDER.name}"],
        "workload": {
            "arrivals": "closed_loop",
            "input_tokens": {"low": 24, "high": 40},
            "output_tokens": {"low": 12, "high": 20},
            "requests": 50,
        },
        "sla": {"ttft_ms_p95": 20000, "tpot_ms_p95": 5000},
        "price": {"usd_per_gpu_hour": 0.1, "all_in_watts_per_gpu": 100},
        "objective": "usd_per_million_output_tokens",
        "runner": "served",
        "space": {"batching.max_sequences": list(BLOCKS), "batching.max_batched_tokens": [128]},
        "serve": {
            "python": vllm_python,
            "checkpoint": str(checkpoint),
            "device": "cpu",
            "args": ["--device", "cpu"],
            "variants": {"bf16": [], "float32": ["--dtype", "float32"], "unknown": ["--no-such-flag"]},
            "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TEST_OF": str(tmp_path)},
            "start_min": 4,
            "load_min": 3,
            "logs": str(tmp_path / "logs"),
        },
        "budget": {"trials": 6},
    }
    path = tmp_path / "own.yaml"
    with path.open("w") as file:
        YAML().dump(asked, file)
    return path


@pytest.fixture
def servetune(tmp_path):
    """Runs a command on the studies of this test."""

    def run(*arguments):
        return CliRunner().invoke(app, [*arguments, "--studies", str(tmp_path / "studies")])

    return run


def test_an_engine_of_ones_own_is_searched_over_the_knobs_that_its_folder_spells(servetune, experiment, tmp_path):
    result = servetune("tune", str(experiment), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    assert result.exit_code == 0, result.output
    assert re.search(r"met the SLA +4\b", result.output)
    assert re.search(r"failed: unsupported flag +2\b", result.output)
    said = " ".join(result.output.split())
    assert "Not had of this server: answers as long as asked for" in said
    assert NO_METRICS in said
    _check_runs(tmp_path)
    written = servetune("report", experiment.stem, "--output", str(tmp_path / "report.html"))
    assert written.exit_code == 0, written.output
    assert "Not had of this server" in (tmp_path / "report.html").read_text()


def _check_runs(tmp_path):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = [one for one in client.search_experiments() if one.name.startswith("servetune/")]
    runs = [run for run in client.search_runs([found.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == 4
    for run in finished:
        assert run.data.metrics["usd_per_million_output_tokens"] > 0
        assert NO_METRICS in run.data.tags["not_had"]
        assert "version.engine" not in run.data.tags

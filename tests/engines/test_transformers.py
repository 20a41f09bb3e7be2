"""An engine of a user's own that really serves: `transformers serve`, described by a folder of data.

It has no /metrics, says no release, and can be made to keep to no lengths: it is measured with what it returns.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from runners.measurement import NO_METRICS

pytestmark = pytest.mark.engine

FOLDER = Path(__file__).parent / "transformers-serve"
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
def experiment(write_experiment, checkpoint, vllm_python, tmp_path):
    """An experiment on the tiny model, with the engine's folder beside it."""
    shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    return write_experiment(
        engines=[f"./{FOLDER.name}"],
        space={"batching.max_sequences": [4, 16], "batching.max_batched_tokens": [128]},
        serve={
            "python": vllm_python,
            "checkpoint": str(checkpoint),
            "args": ["--device", "cpu"],
            "variants": {"bf16": [], "float32": ["--dtype", "float32"], "unknown": ["--no-such-flag"]},
        },
        budget={"trials": 6},
    )


def test_an_engine_of_ones_own_is_searched_over_the_knobs_that_its_folder_spells(servetune, experiment, tmp_path):
    result = servetune("tune", str(experiment))
    assert result.exit_code == 0, result.output
    assert re.search(r"met the SLA +4\b", result.output)
    assert re.search(r"failed: unsupported flag +2\b", result.output)
    said = " ".join(result.output.split())
    assert "Not had of this server: answers as long as asked for" in said
    assert NO_METRICS in said
    _check_runs(tmp_path)
    written = servetune(
        "report", experiment.stem, "--output", str(tmp_path / "report.html"), without=["--tracking-uri"]
    )
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

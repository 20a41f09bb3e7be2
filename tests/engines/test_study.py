"""A study over the flags of a real vLLM, from one experiment file to MLflow, with real failures among its trials."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

DRAFTS = 3


@pytest.fixture
def experiment(write_experiment, tiny, vllm_python):
    draft = {"method": "draft_model", "model": str(tiny / "checkpoint"), "num_speculative_tokens": DRAFTS}
    variants = {
        "float32 without prefix cache": ["--dtype", "float32", "--no-enable-prefix-caching"],
        "draft model": ["--speculative-config", json.dumps(draft)],
        "block of 16": ["--block-size", "16"],
    }
    return write_experiment(
        engines=["vllm@0.32.0"],
        space={
            "precision.weights": ["bf16"],
            "precision.kv_cache": ["bf16"],
            "batching.max_sequences": [8, 32],
            "batching.max_batched_tokens": [2048],
        },
        serve={"python": vllm_python, "variants": variants},
        budget={"trials": 6, "usd": 1.0},
    )


def test_a_study_of_real_flags_finds_what_serves_and_names_what_does_not(servetune, experiment, tmp_path):
    result = servetune("tune", str(experiment))
    assert result.exit_code == 0, result.output
    # Every combination was tried: two batch limits with three variants, of which vLLM on a CPU refuses one.
    assert re.search(r"met the SLA +4\b", result.output)
    assert re.search(r"failed: invalid combination +2\b", result.output)
    assert len(list((tmp_path / "logs" / "tiny").iterdir())) == 6
    _check_runs(f"sqlite:///{tmp_path}/mlflow.db")


def _check_runs(store):
    import mlflow

    client = mlflow.MlflowClient(store)
    (found,) = [one for one in client.search_experiments() if one.name.startswith("servetune/")]
    runs = [run for run in client.search_runs([found.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 6
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == 4
    for run in finished:
        assert run.data.metrics["usd_per_million_output_tokens"] > 0
        assert run.data.metrics["trial.gpu_hours"] > 0
        assert run.data.tags["version.engine"] == "vllm 0.32.0"
        assert 1 <= len(client.get_metric_history(run.info.run_id, "curve.load")) <= 7
    drafted = [run for run in finished if run.data.params["variant"] == "draft model"]
    assert len(drafted) == 2
    for run in drafted:  # the model is its own draft, so all is accepted
        assert run.data.metrics["engine.tokens_per_step"] == pytest.approx(1 + DRAFTS, rel=0.1)
    failed = [run for run in runs if run.info.status == "FAILED"]
    assert len(failed) == 2
    for run in failed:
        assert "No common block size for 16" in run.data.tags["detail"]
        assert Path(re.search(r"log: (\S+)", run.data.tags["detail"])[1]).is_file()

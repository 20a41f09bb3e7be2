"""A retune between two releases of a real vLLM: the champion is served on both in turn, and a verdict ends it."""

import re

import pytest

pytestmark = pytest.mark.engine

OLD, NEW = "0.31.0", "0.32.0"
VERDICTS = {"keep": 0, "upgrade": 10, "switch": 10, "keep_regressed": 20, "do_not_upgrade": 20}


@pytest.fixture
def experiment(write_experiment, vllm_python, older_vllm_python):
    """An experiment with one configuration, whose two releases are installed in two environments."""
    return write_experiment(
        engines=[f"vllm@{OLD}"],
        workload={"arrivals": "closed_loop", "input_tokens": 32, "output_tokens": 16, "requests": 50},
        space={
            "precision.weights": ["bf16"],
            "precision.kv_cache": ["bf16"],
            "batching.max_sequences": [8],
            "batching.max_batched_tokens": [2048],
        },
        serve={"python": {f"vllm@{OLD}": older_vllm_python, f"vllm@{NEW}": vllm_python}},
        budget={"trials": 1},
        # A change by half is looked for: two pairs on a machine that does other work cannot show less.
        retune={"minimum_effect": 0.5, "repeats": 2, "trials": 1},
    )


def test_a_champion_is_held_against_the_next_release_of_vllm(servetune, experiment, tmp_path):
    assert servetune("tune", str(experiment)).exit_code == 0
    promoted = servetune("champion", "promote", "tiny", "--why", "in production")
    assert promoted.exit_code == 0, promoted.output
    output = tmp_path / "retunes"
    result = servetune("retune", str(experiment), "--to", NEW, "--no-index", "--output", str(output))
    summary = (output / f"tiny-vllm-{NEW}.md").read_text()
    (record,) = _runs(tmp_path, "tags.`servetune.retune` LIKE '%'")
    outcome = record.data.tags["servetune.retune"]
    assert result.exit_code == VERDICTS[outcome], result.output
    assert f"vllm {OLD} -> {NEW}" in summary
    assert "over 2 pairs" in summary
    # Tuned, at capacity on either release, A B B A, and the one trial of the new release.
    assert _served(tmp_path / "logs" / "tiny") == [OLD, OLD, NEW, OLD, NEW, NEW, OLD, NEW]
    tried = [run.data.tags for run in _runs(tmp_path, "tags.prior LIKE '%'")]
    assert [tags["version.engine"] for tags in tried] == [f"vllm {NEW}"]
    assert f"on vllm {OLD}" in tried[0]["prior"]


def _served(logs):
    """Releases of the servers, in the order in which they were started."""
    found = [log.read_text() for log in sorted(logs.glob("*/*.log"))]
    return [re.search(r"version (0\.3\d\.0)", text)[1] for text in found]


def _runs(tmp_path, which):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = [one.experiment_id for one in client.search_experiments()]
    return client.search_runs(found, which)

"""A knob that nobody wrote code for: its declaration, and one line in the folder of the engine that spells it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Result

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "runners", "tuner", "servetune", "experiments")
DECLARED = """    Knob(
        name="cache.block_size",
        doc="Tokens in one block of the KV cache.",
        scale="log2",
        grid=(16, 32),
        owner="workers",{more}
    ),
    Knob(
        name="variant",
"""
SPELLED = "knobs: {cache.block_size: --block-size}\n"
EXPERIMENT = """\
model: llama-3.1-8b
system: b200
gpus: 2
engines: [vllm]
workload: {arrivals: closed_loop, input_tokens: 128, output_tokens: 32, requests: 50}
sla: {ttft_ms_p99: 1000}
price: {usd_per_gpu_hour: 2.5, all_in_watts_per_gpu: 1000}
objective: usd_per_million_output_tokens
space:
  layout.tensor: [1]
  layout.pipeline: [1]
  precision.weights: [bf16]
  precision.kv_cache: [bf16]
  speculation.method: [none]
  batching.max_sequences: [64]
  batching.max_batched_tokens: [8192]
budget: {trials: 4}
"""
LOOK = """
import json, sys
from pathlib import Path
from search_spaces.engines.commands import commands
from search_spaces.knobs import flatten
from tuner.app.library import open_study
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.experiment.schema import schema
from tuner.search.surrogate.features import NUMBERS, features_of
from tuner.search.session import Session
from tuner.show.knobs import knob_page
from tuner.tracking.record import record

session = Session(experiment=read_experiment(Path("chat.yaml")))
scenario = session.scenario
study = open_study("chat")
trials = [trial for trial in study.trials if trial.config]
pool = {name: values[0] for name, values in scenario.space.dimensions.items()} | {"mode": "disaggregated"}
apart = scenario.space.config(scenario.space.nearest(pool | {"prefill.block_size": 32}))
features = [dict(zip(NUMBERS, features_of(trial.config, 8.0).numbers)) for trial in trials]
json.dump({
    "dimensions": {name: values for name, values in scenario.space.dimensions.items() if "block_size" in name},
    "distribution": str(scenario.space.distributions()["cache.block_size"]),
    "drawn": [flatten(trial.config)["cache.block_size"] for trial in trials],
    "params": sorted({record(trial, scenario).params["cache.block_size"] for trial in trials}),
    "features": sorted({found["cache.block_size"] for found in features}),
    "schema": json.loads(schema())["properties"]["space"]["properties"]["cache.block_size"],
    "page": [line for line in knob_page().splitlines() if "block_size" in line],
    "rendered": [command.argv for command in commands(scenario.model, trials[0].config)],
    "apart": [command.argv for command in commands(scenario.model, apart)],
}, sys.stdout)
"""


def product_with(folder: Path, more: str = "") -> Path:
    """A copy of the packages with the knob declared, and spelled by one engine."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    knobs = folder / "search_spaces" / "knobs.py"
    last = '    Knob(\n        name="variant",\n'
    text = knobs.read_text()
    assert text.count(last) == 1
    knobs.write_text(text.replace(last, DECLARED.format(more=more)))
    with (folder / "search_spaces" / "engines" / "vllm" / "engine.yaml").open("a") as facts:
        facts.write(SPELLED)
    return folder


def run(product: Path, home: Path, *arguments: str) -> Result:
    env = {**os.environ, "PYTHONPATH": str(product), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-P", *arguments], capture_output=True, text=True, cwd=home, env=env, check=False
    )
    return Result(code=ended.returncode, output=ended.stdout, errors=ended.stderr)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    return product_with(tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def home(product, tmp_path_factory):
    """Where an experiment was searched with the knob."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "chat.yaml").write_text(EXPERIMENT)
    tuned = run(product, folder, "-m", "servetune", "tune", "chat.yaml", "--no-track", "--study", "chat")
    assert tuned.code == 0, tuned.errors
    return folder


@pytest.fixture(scope="module")
def found(product, home):
    looked = run(product, home, "-c", LOOK)
    assert looked.code == 0, looked.errors
    return json.loads(looked.output)


def test_it_is_a_dimension_and_its_twin_of_the_prefill_workers_another(found):
    assert found["dimensions"] == {"cache.block_size": [16, 32], "prefill.block_size": [16, 32]}
    assert found["distribution"] == "IntDistribution(high=32, log=True, low=16, step=1)"


def test_it_is_drawn_and_every_value_tried(found):
    assert {*found["drawn"]} == {16, 32}


def test_it_is_among_the_parameters_of_runs_and_the_surrogates_features(found):
    assert found["params"] == ["16", "32"]
    assert found["features"] == [4.0, 5.0]


def test_it_is_in_the_schema_and_in_the_table_of_knobs(found):
    assert found["schema"]["description"] == "Tokens in one block of the KV cache."
    assert found["schema"]["items"] == {"type": "integer", "minimum": 1, "maximum": 16777216}
    row, twin = found["page"]
    assert row.startswith("| cache.block_size | Tokens in one block of the KV cache. | 16, 32 |")
    assert row.endswith("| vllm |")
    assert twin.startswith("| prefill.block_size |")


def test_it_is_rendered_for_each_kind_of_worker(found):
    (argv,) = found["rendered"]
    assert argv[argv.index("--block-size") + 1] == str(found["drawn"][0])
    sizes = [argv[argv.index("--block-size") + 1] for argv in found["apart"]]
    assert sizes == ["32", "16"]


def test_it_is_set_on_the_command_line(product, home):
    simulate = ("-m", "servetune", "simulate", "chat.yaml", "--load", "4", "--set")
    done = run(product, home, *simulate, "cache.block_size=32")
    assert done.code == 0, done.errors
    assert "8192 tokens in a pass, cache.block_size 32" in " ".join(done.output.split())
    refused = run(product, home, *simulate, "cache.blck_size=32")
    assert refused.code == 2
    assert "unknown setting 'cache.blck_size'; valid: cache.block_size, " in refused.errors


@pytest.mark.parametrize(
    ("listed", "engines", "said"),
    [
        ("[48]", "[vllm]", "unknown value of cache.block_size '48'; valid: 32, 16"),
        ("[0]", "[vllm]", "`cache.block_size >= 1` must hold, but got 0"),
        ("[16]", "[sglang]", "cache.block_size is not searched here: sglang does not take it"),
    ],
)
def test_what_it_cannot_be_is_refused_by_file_and_key(product, tmp_path, listed, engines, said):
    text = EXPERIMENT.replace("[vllm]", engines).replace("space:\n", f"space:\n  cache.block_size: {listed}\n")
    (tmp_path / "chat.yaml").write_text(text)
    refused = run(product, tmp_path, "-m", "servetune", "tune", "chat.yaml", "--no-track")
    assert refused.code == 2
    assert refused.errors.startswith(f"servetune: chat.yaml: space.cache.block_size: {said}"), refused.errors


def test_what_no_predictor_prices_is_searched_on_real_engines_only(tmp_path):
    product = product_with(tmp_path / "product", more="\n        priced_by=(),")
    (tmp_path / "chat.yaml").write_text(EXPERIMENT.replace("space:\n", "space:\n  cache.block_size: [16, 32]\n"))
    refused = run(product, tmp_path, "-m", "servetune", "tune", "chat.yaml", "--no-track")
    assert refused.code == 2
    assert (
        "chat.yaml: space.cache.block_size: cache.block_size is not searched here: runner: simulated cannot price it; "
        "it is searched with runner: served" in refused.errors
    )
    (tmp_path / "chat.yaml").write_text(EXPERIMENT)
    dimensions = (
        "from pathlib import Path; from tuner.scenario.experiment.reading import read_experiment; "
        "print([*read_experiment(Path('chat.yaml'), runner=RUNNER).scenario().space.dimensions])"
    )
    for runner, searched in (("simulated", False), ("served", True)):
        looked = run(product, tmp_path, "-c", dimensions.replace("RUNNER", repr(runner)))
        assert looked.code == 0, looked.errors
        assert ("cache.block_size" in looked.output) == searched

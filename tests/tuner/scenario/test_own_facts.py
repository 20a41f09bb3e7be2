"""Models and systems of one's own, and experiments that are served for real."""

import json
from pathlib import Path

import pytest

from runners.measurement import Measurement, Observed, Percentiles
from runners.served.served import Served
from runners.served.shell import how_to_start
from runners.served.time_limits import TimeLimits
from search_spaces.config import Engine
from search_spaces.errors import InputError
from search_spaces.hardware.system import System, find_system, systems
from search_spaces.models.model import Model, models
from search_spaces.tables import read_yaml
from tests.own_facts import MODEL, SYSTEM
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.own_facts import entry_of
from tuner.search.ranking import Uninformed
from tuner.search.session import Session
from tuner.search.trial import Trial, trial_from_json, trial_to_json
from tuner.tracking.record import record

EXPERIMENT = """\
model: model.yaml
system: own/system.yml
gpus: 1
engines: [vllm@0.32.0]
workload: {arrivals: closed_loop, input_tokens: 32, output_tokens: 16, requests: 60}
sla: {ttft_ms_p95: 1000}
price: {usd_per_gpu_hour: 0.1, all_in_watts_per_gpu: 100}
objective: usd_per_million_output_tokens
runner: served
space: {batching.max_sequences: [8], variant: [half, whole]}
serve:
  python: env/python
  checkpoint: weights
  device: cpu
  args: [--enforce-eager]
  variants: {half: [--dtype, float16], whole: [--dtype, float32], unused: []}
  env: {OMP_NUM_THREADS: "1"}
  start_min: 2
  load_min: 1
  logs: kept
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "own" / "system.yml").write_text(SYSTEM)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    return tmp_path / "experiment.yaml"


def told(path):
    with pytest.raises(InputError) as caught:
        read_experiment(path).scenario()
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "table", "known"), [(Model, "models/models.yaml", models), (System, "hardware/systems.yaml", systems)]
)
def test_every_entry_that_ships_can_stand_in_a_file_of_its_own(kind, table, known):
    for name, facts in read_yaml("search_spaces", table).items():
        assert entry_of(kind, Path("own.yaml"), {name: facts}) == known()[name]


def test_an_experiment_names_files_relative_to_itself(path):
    scenario = read_experiment(path).scenario()
    assert (scenario.model.name, scenario.model.layers) == ("tiny", 2)
    assert (scenario.system.name, scenario.system.gpu.memory_bytes) == ("cpu", 8e9)
    assert scenario.space.engines == (Engine(name="vllm", version="0.32.0"),)


def test_variants_are_a_dimension_that_can_be_restricted(path):
    space = read_experiment(path).scenario().space
    assert space.dimensions["variant"] == ("half", "whole")
    params = {name: values[0] for name, values in space.dimensions.items()}
    config = space.config(params)
    assert config.variant == "half"
    assert space.params(config) == params
    assert str(config).endswith(" half")


def test_an_unknown_or_missing_fact_is_named_with_its_place(path):
    broken = MODEL.replace("query_heads: 4", "query_head: 4").replace("head_dim: 32", "head_dims: 32")
    (path.parent / "model.yaml").write_text(broken)
    message = told(path)
    assert "model.yaml: tiny: unknown key 'query_head'; valid: query_heads," in message
    assert "model.yaml: tiny: query_heads: missing" in message
    assert "model.yaml: tiny.attention: unknown key 'head_dims'; valid: head_dim," in message


def test_a_fact_of_the_wrong_kind_is_named(path):
    (path.parent / "model.yaml").write_text(MODEL.replace("layers: 2", "layers: many"))
    assert "model.yaml: tiny.layers: Input should be a valid integer" in told(path)


@pytest.mark.parametrize(
    ("fact", "instead", "found"),
    [
        ("dense_parameters: 295424", "dense_parameters: -1.0e+12", "<= 1e+18` must hold, but got -1000000000000.0"),
        ("dense_parameters: 295424", "dense_parameters: .nan", "tiny.dense_parameters: `1 <= dense_parameters"),
        ("max_context: 1024", "max_context: .inf", "tiny.max_context: Input should be a valid integer"),
        ("layers: 2", "layers: '2'", "tiny.layers: Input should be a valid integer, but got '2'"),
        ("layers: 2", "layers: true", "tiny.layers: Input should be a valid integer, but got True"),
        ("layers: 2", "layers: 2.5", "tiny.layers: Input should be a valid integer, but got 2.5"),
        ("layers: 2", "layers: 2026-01-01", "tiny.layers: Input should be a valid integer, but got '2026-01-01'"),
        ("kv_heads: 2", "kv_heads: 3", "tiny.attention.kv_heads: must divide the 4 query_heads, but got 3"),
        ("silicon_name: tiny", "silicon_name: openai/gpt-oss-120b", "tiny.layers: must be 36 as of openai/gpt"),
    ],
)  # fmt: skip
def test_a_fact_of_a_model_that_cannot_be_is_refused_with_its_place_law_and_value(path, fact, instead, found):
    (path.parent / "model.yaml").write_text(MODEL.replace(fact, instead))
    assert found in told(path)


@pytest.mark.parametrize(
    ("fact", "instead", "found"),
    [
        ("network_latency_s: 1.0e-4", "network_latency_s: -5", "`0 <= network_latency_s <= 1` must hold, but got -5"),
        ("memory_bytes: 8.0e+9", "memory_bytes: .nan", "cpu.gpu.memory_bytes: `1 <= memory_bytes <= 1e+18` must hold"),
        ("gpus_per_node: 2", "gpus_per_node: 8", "`gpus_per_node <= 2` (max_gpus) must hold, but got 8"),
    ],
)  # fmt: skip
def test_a_fact_of_a_system_that_cannot_be_is_refused_with_its_place_law_and_value(path, fact, instead, found):
    (path.parent / "own" / "system.yml").write_text(SYSTEM.replace(fact, instead))
    assert found in told(path)


def test_every_broken_law_of_a_file_is_said_at_once(path):
    (path.parent / "model.yaml").write_text(
        MODEL.replace("layers: 2\n", "layers: 0\n").replace("max_context: 1024", "max_context: -1")
    )
    assert "tiny.layers:" in told(path)
    assert "tiny.max_context:" in told(path)


@pytest.mark.parametrize("text", ["[1, 2]", "{}", "a: {}\nb: {}", "a: 1"])
def test_a_file_that_describes_no_model_is_refused(path, text):
    (path.parent / "model.yaml").write_text(text)
    assert "model.yaml: must" in told(path)


def test_a_file_that_is_not_there_is_named(path):
    (path.parent / "model.yaml").unlink()
    assert "model.yaml: cannot be read: No such file" in told(path)


def test_a_release_without_kernel_data_can_only_be_served(path):
    assert read_experiment(path).engines == ["vllm@0.32.0"]
    with pytest.raises(InputError, match=r"engines\[0\]: unknown vllm version '0.32.0'; valid: 0.2"):
        read_experiment(path, runner="simulated")
    path.write_text(EXPERIMENT.replace("vllm@0.32.0", "vllm@newest"))
    with pytest.raises(InputError, match="unknown vllm version 'newest'"):
        read_experiment(path)


def test_a_misspelt_key_of_serve_is_named(path):
    path.write_text(EXPERIMENT.replace("  start_min: 2", "  start_mins: 2"))
    with pytest.raises(InputError, match=r"serve.start_mins: unknown key 'start_mins'; valid: start_min,"):
        read_experiment(path)


def test_serve_says_what_is_installed_and_how_long_it_may_take(path):
    (path.parent / "weights").mkdir()
    serve = read_experiment(path).serve
    assert serve is not None
    here = serve.installation(path.parent, devices=("0",))
    assert here.checkpoint == str(path.parent / "weights")
    assert here.python == "env/python", "no such file here: left as it is"
    assert here.devices is None, "cpu"
    assert here.variants["half"] == ("--dtype", "float16")
    assert serve.limits == TimeLimits(start_s=120, load_s=60, stall_s=60, stop_s=10)


def test_a_session_serves_without_predictions_where_there_are_no_kernel_times(path):
    session = Session(experiment=read_experiment(path))
    assert isinstance(session.prior, Uninformed)
    assert isinstance(session.runner, Served)
    assert json.dumps(session.asked)


def test_a_model_without_kernel_times_is_served_without_predictions_and_not_looked_for_on_the_network(path):
    path.write_text(EXPERIMENT.replace("own/system.yml", "b200").replace("vllm@0.32.0", "vllm"))
    assert isinstance(Session(experiment=read_experiment(path)).prior, Uninformed)


def test_another_fact_in_an_own_file_is_another_experiment_and_other_logs_are_not(path):
    name = Session(experiment=read_experiment(path)).study_name
    path.write_text(EXPERIMENT.replace("logs: kept", "logs: elsewhere"))
    assert Session(experiment=read_experiment(path)).study_name == name
    (path.parent / "model.yaml").write_text(MODEL.replace("made up", "measured"))
    assert Session(experiment=read_experiment(path)).study_name != name


def test_the_command_shown_is_the_one_that_was_measured(path):
    (path.parent / "weights").mkdir()
    scenario = read_experiment(path).scenario()
    config = scenario.space.config({name: values[0] for name, values in scenario.space.dimensions.items()})
    line = how_to_start(scenario.model, config, scenario.installation).splitlines()[1]
    assert line.startswith(f"OMP_NUM_THREADS=1 vllm serve {path.parent}/weights ")
    assert line.endswith(" --enforce-eager --dtype float16")


def test_settings_are_changed_from_the_untuned_engine_without_serving_it(path):
    session = Session(experiment=read_experiment(path))
    config = session.changed(["batching.max_sequences=8", "variant=whole"])
    assert (config.batching.max_sequences, config.variant) == (8, "whole")


def test_what_the_engine_said_of_itself_is_kept_and_tracked(path):
    scenario = read_experiment(path).scenario()
    config = scenario.space.config({name: values[0] for name, values in scenario.space.dimensions.items()})
    flat = Percentiles.of([0.1])
    seen = Observed(
        queue_time_s=0.25, acceptance=(0.5, 0.25), watts=200.0, versions=(("engine", "vllm 0.32.0"), ("gpu", "H200"))
    )
    level = Measurement(
        load=4,
        gpus=1,
        duration_s=10,
        requests=100,
        input_tokens=3200,
        output_tokens=1600,
        ttft=flat,
        tpot=flat,
        itl=flat,
        e2e=flat,
        source="measured",
        observed=seen,
    )
    trial = Trial(number=0, ending="measured", config=config, levels=(level,))
    assert trial_from_json(trial_to_json(trial)) == trial
    row = record(trial, scenario)
    assert row.metrics["engine.queue_ms_mean"] == 250
    assert row.metrics["engine.tokens_per_step"] == 1.75
    assert row.metrics["engine.acceptance_2"] == 0.25
    assert row.metrics["output_tokens_per_joule"] == pytest.approx(160 / 200)
    assert "engine.prefix_cache_hits" not in row.metrics
    assert row.tags["version.gpu"] == "H200"
    assert row.params["variant"] == "half"


def test_names_of_what_ships_still_work(path):
    path.write_text(EXPERIMENT.replace("own/system.yml", "b200"))
    assert read_experiment(path).scenario().system == find_system("b200")

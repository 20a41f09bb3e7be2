"""ServingConfig: what a configuration is, and that it survives being written down."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from search_spaces.config import (
    KNOBS,
    MAX_DRAFT_LENGTH,
    METHODS,
    Batching,
    Disaggregation,
    Engine,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
    flatten,
    unflatten,
)
from search_spaces.engines.engine import engine_names
from search_spaces.errors import UnknownNameError
from search_spaces.models.model import KV_BYTES, WEIGHT_BYTES

SIZES = st.integers(1, 72)
LAYOUTS = st.builds(Layout, tensor=SIZES, pipeline=SIZES, attention_dp=SIZES, expert=SIZES, replicas=SIZES)
# Versions that YAML would read as numbers, dates or nothing at all, were they not quoted.
VERSIONS = st.sampled_from(["1.3.0rc20", "0.24.0", "0.24", "1e3", "0x10", "2026-07-31", "null", "no", "~", ""])


@st.composite
def batchings(draw) -> Batching:
    sequences = draw(st.integers(1, 4096))
    return Batching(max_sequences=sequences, max_batched_tokens=draw(st.integers(sequences, 65536)))


@st.composite
def speculations(draw) -> Speculation:
    method = draw(st.sampled_from(METHODS))
    length = 0 if method == "none" else draw(st.integers(1, MAX_DRAFT_LENGTH))
    return Speculation(method=method, draft_length=length)


CONFIGS = st.builds(
    ServingConfig,
    engine=st.builds(Engine, name=st.sampled_from(engine_names()), version=VERSIONS),
    layout=LAYOUTS,
    batching=batchings(),
    precision=st.builds(
        Precision, weights=st.sampled_from(sorted(WEIGHT_BYTES)), kv_cache=st.sampled_from(sorted(KV_BYTES))
    ),
    speculation=speculations(),
    disaggregation=st.none() | st.builds(Disaggregation, prefill_layout=LAYOUTS, prefill_batching=batchings()),
)


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_is_the_same_after_flattening_and_back(config):
    assert unflatten(flatten(config)) == config


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_is_the_same_after_yaml_and_back(config):
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(flatten(config), text)
    assert unflatten(YAML(typ="safe", pure=True).load(text.getvalue())) == config


@settings(deadline=None)
@given(CONFIGS)
def test_its_keys_are_known_knobs_in_their_order(config):
    keys = list(flatten(config))
    assert keys == [knob for knob in KNOBS if knob in keys]


@settings(deadline=None)
@given(CONFIGS)
def test_only_a_disaggregated_configuration_has_prefill_keys(config):
    prefill = any(key.startswith("disaggregation.") for key in flatten(config))
    assert prefill == (config.mode == "disaggregated")


@settings(deadline=None)
@given(CONFIGS)
def test_all_pools_are_counted_in_gpus(config):
    layouts = [config.layout]
    if config.disaggregation is not None:
        layouts.append(config.disaggregation.prefill_layout)
    assert config.gpus == sum(one.tensor * one.pipeline * one.attention_dp * one.replicas for one in layouts)


@settings(deadline=None)
@given(CONFIGS)
def test_equal_configurations_count_once_in_a_set(config):
    assert len({config, unflatten(flatten(config))}) == 1


def test_what_is_left_out_is_default():
    config = unflatten({"engine.name": "vllm", "engine.version": "0.24.0", "layout.tensor": 4})
    assert config == ServingConfig(engine=Engine(name="vllm", version="0.24.0"), layout=Layout(tensor=4))


def test_an_unknown_setting_is_refused_with_the_nearest_first():
    with pytest.raises(UnknownNameError, match=r"unknown setting 'layout\.tensr'; valid: layout\.tensor, "):
        unflatten({"layout.tensr": 4})


@pytest.mark.parametrize("name", ["tensor", "pipeline", "attention_dp", "expert", "replicas"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_layout_smaller_than_one_gpu_is_refused(name, size):
    with pytest.raises(ValueError, match=f"`{name} >= 1` must hold, but got {size}"):
        Layout(**{name: size})


def test_more_sequences_than_tokens_in_a_pass_are_refused():
    with pytest.raises(ValueError, match=r"`max_batched_tokens >= max_sequences` must hold, but got 128 < 256"):
        Batching(max_sequences=256, max_batched_tokens=128)


@pytest.mark.parametrize(("method", "length"), [("none", 1), ("mtp", 0), ("eagle3", MAX_DRAFT_LENGTH + 1), ("mtp", -1)])
def test_a_draft_length_that_does_not_go_with_its_method_is_refused(method, length):
    with pytest.raises(ValueError, match=f"method {method} with draft_length {length}"):
        Speculation(method=method, draft_length=length)


def test_workers_are_named_as_people_name_them():
    engine = Engine(name="trtllm", version="1.3.0rc20")
    aggregated = ServingConfig(engine=engine, layout=Layout(replicas=8))
    disaggregated = ServingConfig(
        engine=engine,
        layout=Layout(tensor=4, replicas=5),
        disaggregation=Disaggregation(prefill_layout=Layout(tensor=2, replicas=3)),
    )
    assert aggregated.workers == "8x"
    assert disaggregated.workers == "3P5D"
    assert str(disaggregated).startswith("3P5D tp2 > tp4 ")


def test_attention_ranks_pipeline_stages_and_replicas_schedule_on_their_own():
    assert Layout(tensor=4, pipeline=2, attention_dp=3, replicas=5).schedulers == 30

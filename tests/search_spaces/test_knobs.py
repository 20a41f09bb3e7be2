"""Knobs: one declaration each, from which configurations are written down and read."""

import io
import math

import pytest
from hypothesis import given, settings
from ruamel.yaml import YAML

from search_spaces.config import (
    Engine,
    Layout,
    ServingConfig,
)
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.knobs import EARLIER, KNOBS, PREFILL, find_knob, flatten, unflatten
from tests.search_spaces.configs import CONFIGS


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_is_the_same_after_being_written_down_and_read(config):
    assert unflatten(flatten(config)) == config


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_is_the_same_after_yaml_and_back(config):
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False  # as files are written: ruamel does not quote "?0" within braces
    yaml.dump(flatten(config), text)
    assert unflatten(yaml.load(text.getvalue())) == config


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
    config = unflatten({"engine": "vllm", "engine.version": "0.24.0", "layout.tensor": 4})
    assert config == ServingConfig(engine=Engine(name="vllm", version="0.24.0"), layout=Layout(tensor=4))


@settings(deadline=None)
@given(CONFIGS)
def test_every_setting_stands_under_its_knob_in_the_order_of_knobs(config):
    keys = list(flatten(config))
    assert keys == [name for name in KNOBS if name in keys]


@settings(deadline=None)
@given(CONFIGS)
def test_only_a_disaggregated_configuration_has_settings_of_prefill_workers(config):
    flat = flatten(config)
    assert any(name.startswith(PREFILL) for name in flat) == (flat["mode"] == "disaggregated")


@settings(deadline=None)
@given(CONFIGS)
def test_every_number_has_a_finite_feature(config):
    for knob in KNOBS.values():
        feature = knob.feature(config)
        assert isinstance(feature, float if knob.is_number else str), knob.name
        assert not knob.is_number or math.isfinite(feature), knob.name


def test_each_knob_of_workers_has_a_twin_for_the_prefill_workers_and_no_other_has():
    twins = {PREFILL + knob.name.rpartition(".")[2] for knob in KNOBS.values() if knob.owner == "workers"}
    assert twins == {name for name in KNOBS if name.startswith(PREFILL)}


def test_settings_of_prefill_workers_contradict_an_aggregated_mode():
    with pytest.raises(ValueError, match=r"`prefill\.tensor` goes with mode disaggregated, but got mode aggregated"):
        unflatten({"mode": "aggregated", "engine": "vllm", "engine.version": "1", "prefill.tensor": 2})


def test_an_unknown_setting_is_refused_with_the_nearest_first():
    with pytest.raises(UnknownNameError, match=r"unknown setting 'layout\.tensr'; valid: layout\.tensor, "):
        find_knob("layout.tensr")


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ("engine.name", "engine"),
        ("prefill.workers", "prefill.replicas"),
        ("speculation", "speculation.method"),
        ("disaggregation", "mode"),
        ("disaggregation.prefill_layout.tensor", "prefill.tensor"),
        ("disaggregation.prefill_batching.max_sequences", "prefill.max_sequences"),
    ],
)
def test_an_earlier_name_is_refused_with_what_it_is_called_now(earlier, now):
    with pytest.raises(InputError, match=rf"{earlier} is called {now} now"):
        find_knob(earlier)


def test_no_earlier_name_is_a_knob_again():
    assert not EARLIER.keys() & KNOBS.keys()
    assert set(EARLIER.values()) <= KNOBS.keys()


@pytest.mark.parametrize(
    ("name", "value", "law"),
    [
        ("layout.tensor", True, "must be a whole number, but got True"),
        ("layout.tensor", 2.0, r"must be a whole number, but got 2\.0"),
        ("layout.tensor", "2", "must be a whole number, but got '2'"),
        ("layout.tensor", 0, r"`layout\.tensor >= 1` must hold, but got 0"),
        ("batching.max_sequences", -8, r"`batching\.max_sequences >= 1` must hold, but got -8"),
        ("speculation.draft_length", 9, r"`speculation\.draft_length <= 8` must hold, but got 9"),
        ("precision.weights", 8, "must be a name, but got 8"),
        ("precision.weights", "fp8_bloc", r"unknown precision\.weights 'fp8_bloc'; valid: fp8_block, "),
        ("mode", "agregated", "unknown mode 'agregated'; valid: aggregated, disaggregated"),
    ],
)
def test_a_value_that_a_knob_cannot_have_is_refused_with_the_law_and_what_was_found(name, value, law):
    with pytest.raises(InputError, match=law):
        KNOBS[name].checked(value)

"""Shapes that kernel times stand for."""

from dataclasses import replace

import pytest

from runners.simulated.architectures import bundled_names, differences, shape_of
from search_spaces.models.model import find_model, models


@pytest.mark.parametrize("model", models().values(), ids=list(models()))
def test_what_ships_has_the_shape_of_its_kernel_times(model):
    assert shape_of(model.silicon_name)
    assert list(differences(model)) == []


def test_a_dense_model_an_expert_model_and_a_latent_one_are_read_from_their_configurations():
    """As their published config.json have them."""
    assert shape_of("Qwen/Qwen3-8B") == {
        "layers": 36,
        "hidden_size": 4096,
        "query_heads": 32,
        "attention.latent_width": 0,
        "attention.kv_heads": 8,
        "attention.head_dim": 128,
        "experts": 0,
        "experts_per_token": 0,
        "expert_width": 12288,
    }
    mixtral, deepseek = shape_of("mistralai/Mixtral-8x7B-v0.1"), shape_of("deepseek-ai/DeepSeek-V3")
    assert mixtral is not None
    assert deepseek is not None
    assert (mixtral["experts"], mixtral["experts_per_token"], mixtral["attention.head_dim"]) == (8, 2, 128)
    assert (deepseek["attention.latent_width"], deepseek["attention.kv_heads"]) == (512 + 64, 0)


def test_every_bundled_configuration_can_be_read():
    names = bundled_names()
    assert {model.silicon_name for model in models().values()} <= {*names}
    assert all(shape_of(name) for name in names)


def test_every_fact_of_another_shape_is_named():
    small = replace(find_model("llama-3.1-8b"), silicon_name="meta-llama/Meta-Llama-3.1-70B")
    found = list(differences(small))
    assert [law.partition(":")[0] for law in found] == ["layers", "hidden_size", "query_heads", "expert_width"]
    assert found[0].endswith("must be 80 as of meta-llama/Meta-Llama-3.1-70B, whose kernel times it takes, but got 32")


def test_a_name_without_kernel_times_has_no_shape():
    assert shape_of("no/such-model") is None
    assert list(differences(replace(find_model("llama-3.1-8b"), silicon_name="no/such-model"))) == []

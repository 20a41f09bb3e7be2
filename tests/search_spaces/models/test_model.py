"""The checkpoints, against what was published, against work by hand and against another implementation."""

import json
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    METHODS,
    Batching,
    Engine,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
    Weights,
)
from search_spaces.errors import InfeasibleError, UnknownNameError
from search_spaces.fit import memory
from search_spaces.hardware.system import find_system
from search_spaces.models.model import Model, find_model, models

BILLION = 1e9
GIB = 1 << 30

EVERY_MODEL = pytest.mark.parametrize("model", models().values(), ids=list(models()))


def parameters(model: Model) -> float:
    return model.dense_parameters + model.expert_parameters + model.embedding_parameters


def weight_bytes(model: Model, weights: Weights, layout: Layout) -> float:
    """What one GPU of a worker holds, as the memory law sees it."""
    config = ServingConfig(
        engine=Engine(name="trtllm", version="1.3.0rc20"), layout=layout, precision=Precision(weights=weights)
    )
    return memory(model, find_system("b200"), config, layout, Batching()).weights


def bundled_config(model: Model) -> dict:
    """The checkpoint's own config.json, as AIConfigurator bundles it."""
    name = f"{model.silicon_name.replace('/', '--')}_config.json"
    text = files("aiconfigurator_core").joinpath("model_configs", name).read_text(encoding="utf-8")
    config = json.loads(text)
    return {**config, **config.get("text_config", {})}


# Published totals in billions, from the model cards and reports named in models.yaml.
PUBLISHED = {
    "gpt-oss-120b": 116.83,
    "gpt-oss-20b": 20.91,
    "llama-3.3-70b": 70.6,
    "llama-3.1-8b": 8.03,
    "llama-3.1-405b": 405.9,
    "deepseek-r1": 671.0,
    "qwen3-vl-235b": 235.0,
    "qwen3-235b": 235.0,
    "kimi-k2.5": 1040.0,
    "minimax-m2.5": 229.0,
    "qwen3-32b": 32.8,
}

# Published active parameters in billions (gpt-oss counts the output head but not the input embedding).
PUBLISHED_ACTIVE = {"gpt-oss-120b": 5.13, "gpt-oss-20b": 3.61, "deepseek-r1": 37.0, "deepseek-v4-pro": 49.0}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_the_parameters_add_up_to_the_published_total(name, published):
    assert parameters(find_model(name)) / BILLION == pytest.approx(published, rel=0.02)


def test_deepseek_v4_pro_adds_up_to_its_published_total_with_the_draft_module():
    model = find_model("deepseek-v4-pro")
    assert (parameters(model) + model.drafts["mtp"].parameters) / BILLION == pytest.approx(1600, rel=0.01)


@pytest.mark.parametrize(("name", "published"), PUBLISHED_ACTIVE.items())
def test_the_parameters_that_one_token_meets_are_the_published_active_ones(name, published):
    model = find_model(name)
    active = (
        model.dense_parameters
        + model.expert_parameters * model.experts_per_token / model.experts
        + model.embedding_parameters / 2
    )
    assert active / BILLION == pytest.approx(published, rel=0.02)


def test_the_draft_module_of_deepseek_r1_has_the_published_size():
    assert find_model("deepseek-r1").drafts["mtp"].parameters / BILLION == pytest.approx(11.5, rel=0.02)


@pytest.mark.parametrize(("name", "published_gib"), [("gpt-oss-120b", 60.8), ("gpt-oss-20b", 12.8)])
def test_the_mxfp4_checkpoints_of_gpt_oss_have_their_published_size(name, published_gib):
    model = find_model(name)
    assert weight_bytes(model, "mxfp4", Layout()) / GIB == pytest.approx(published_gib, rel=0.01)


@EVERY_MODEL
def test_every_model_has_the_shape_that_its_own_configuration_states(model):
    config = bundled_config(model)
    assert model.layers == config["num_hidden_layers"]
    assert model.hidden_size == config["hidden_size"]
    assert model.query_heads == config["num_attention_heads"]
    assert model.max_context == config["max_position_embeddings"]
    experts = config.get("n_routed_experts", config.get("num_experts", config.get("num_local_experts", 0)))
    assert model.experts == experts
    assert model.experts_per_token == (config["num_experts_per_tok"] if experts else 0)
    assert model.expert_width == (config.get("moe_intermediate_size") or config["intermediate_size"])
    assert model.embedding_parameters == pytest.approx(2 * config["vocab_size"] * config["hidden_size"], rel=1e-4)


@EVERY_MODEL
def test_every_layer_of_every_model_keeps_a_cache(model):
    attention = model.attention
    whole = sum(attention.layers_by_ratio.values())
    if attention.latent_width:
        assert whole == model.layers
    else:
        assert whole + attention.window_layers == model.layers


def test_deepseek_v4_pro_compresses_as_many_layers_as_its_configuration_states():
    ratios = bundled_config(find_model("deepseek-v4-pro"))["compress_ratios"][:-1]  # the last is the MTP layer's
    assert find_model("deepseek-v4-pro").attention.layers_by_ratio == {
        128: ratios.count(128),
        4: ratios.count(4),
    }


# The KV cache, by hand.


def test_grouped_query_attention_keeps_keys_and_values_of_every_kv_head():
    model = find_model("llama-3.3-70b")
    elements = 80 * 2 * 8 * 128  # layers x (key, value) x KV heads x width, for one token
    assert elements == 163_840
    assert model.kv_bytes(1000, kv_cache="bf16") == 1000 * elements * 2
    assert model.kv_bytes(1000, kv_cache="fp8") == 1000 * elements
    assert model.kv_bytes(1000, kv_cache="fp8", tensor=8) == 1000 * elements / 8


def test_a_kv_head_is_not_split_so_more_ranks_than_heads_hold_copies():
    model = find_model("qwen3-235b")
    one_head = 94 * 2 * 1 * 128
    assert model.kv_bytes(1, kv_cache="fp8", tensor=4) == one_head
    assert model.kv_bytes(1, kv_cache="fp8", tensor=8) == one_head


def test_a_sliding_window_stops_growing_when_it_is_full():
    model = find_model("gpt-oss-120b")
    layer = 2 * 8 * 64
    assert model.kv_bytes(100, kv_cache="fp8") == 36 * layer * 100
    assert model.kv_bytes(8192, kv_cache="fp8") == 18 * layer * 8192 + 18 * layer * 128


def test_latent_attention_keeps_one_latent_which_every_tensor_rank_holds_whole():
    model = find_model("deepseek-r1")
    assert model.kv_bytes(1, kv_cache="bf16") == 61 * (512 + 64) * 2
    assert model.kv_bytes(1, kv_cache="bf16", tensor=8) == 61 * (512 + 64) * 2


def test_compressed_attention_keeps_one_entry_for_many_tokens_and_a_window():
    model = find_model("deepseek-v4-pro")
    entries = 31 * (1024 / 128) + 30 * (1024 / 4) + 61 * 128
    assert entries == 15_736
    index, state = 480 * 1024, 17.5e6
    assert model.kv_bytes(1024, kv_cache="fp8") == entries * 512 + index + state


tokens = st.floats(min_value=1, max_value=1_000_000)
ranks = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@given(name=st.sampled_from(list(models())), shorter=tokens, longer=tokens, tensor=ranks)
def test_a_longer_sequence_never_needs_less_cache(name, shorter, longer, tensor):
    shorter, longer = sorted((shorter, longer))
    model = find_model(name)
    small = model.kv_bytes(shorter, kv_cache="fp8", tensor=tensor)
    assert small <= model.kv_bytes(longer, kv_cache="fp8", tensor=tensor)


@given(name=st.sampled_from(list(models())), length=tokens, fewer=ranks, more=ranks)
def test_more_tensor_ranks_never_need_more_cache_on_each(name, length, fewer, more):
    fewer, more = sorted((fewer, more))
    model = find_model(name)
    many = model.kv_bytes(length, kv_cache="bf16", tensor=more)
    assert many <= model.kv_bytes(length, kv_cache="bf16", tensor=fewer)


# Another implementation: AIConfigurator's own memory model.

MODES: dict[str, tuple[str, str]] = {
    "bf16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8_block"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "mxfp4": ("bfloat16", "w4a16_mxfp4"),
    "mxfp4_mxfp8": ("bfloat16", "w4a8_mxfp4_mxfp8"),
    "fp8_mxfp4": ("fp8_block", "w4a8_mxfp4_mxfp8"),
}


def aiconfigurator_model(model: Model, weights: Weights, layout: Layout):
    from aiconfigurator_core.sdk import common
    from aiconfigurator_core.sdk.config import ModelConfig
    from aiconfigurator_core.sdk.models import get_model

    gemm, moe = MODES[weights]
    config = ModelConfig(
        tp_size=layout.tensor,
        pp_size=layout.pipeline,
        attention_dp_size=layout.attention_dp,
        moe_tp_size=layout.moe_tensor,
        moe_ep_size=layout.expert,
        gemm_quant_mode=common.GEMMQuantMode[gemm],
        moe_quant_mode=common.MoEQuantMode[moe],
        kvcache_quant_mode=common.KVCacheQuantMode.fp8,
        fmha_quant_mode=common.FMHAQuantMode.bfloat16,
    )
    return get_model(model.silicon_name, config, "trtllm")


TENSOR = Layout(tensor=8)
EXPERT = Layout(tensor=8, expert=8)
WIDE = Layout(attention_dp=8, expert=8)
MIXED = Layout(tensor=4, attention_dp=2, expert=8)
STAGED = Layout(tensor=4, pipeline=2, expert=4)


@pytest.mark.parametrize(
    ("name", "weights", "layout"),
    [
        ("llama-3.3-70b", "bf16", Layout()),
        ("llama-3.3-70b", "nvfp4", TENSOR),
        ("llama-3.1-405b", "fp8", Layout(tensor=4, pipeline=2)),
        ("gpt-oss-120b", "mxfp4_mxfp8", EXPERT),
        ("gpt-oss-120b", "mxfp4", MIXED),
        ("deepseek-r1", "fp8_block", WIDE),
        ("deepseek-r1", "nvfp4", EXPERT),
        ("deepseek-r1", "nvfp4", STAGED),
        ("deepseek-v4-pro", "fp8_mxfp4", WIDE),
        ("deepseek-v4-pro", "fp8_mxfp4", EXPERT),
        ("qwen3-vl-235b", "bf16", TENSOR),
        ("qwen3-235b", "nvfp4", WIDE),
        ("kimi-k2.5", "nvfp4", EXPERT),
    ],
    ids=str,
)
def test_the_weights_on_one_gpu_are_within_a_tenth_of_what_aiconfigurator_counts(name, weights, layout):
    model = find_model(name)
    operations = aiconfigurator_model(model, weights, layout).context_ops
    oracle = sum(operation.get_weights() for operation in operations) / layout.pipeline
    assert weight_bytes(model, weights, layout) == pytest.approx(oracle, rel=0.1)


@pytest.mark.parametrize("name", [name for name in models() if name != "deepseek-v4-pro"])
@pytest.mark.parametrize("tensor", [1, 8])
@pytest.mark.parametrize("length", [100, 8192])
def test_the_cache_on_one_gpu_is_what_aiconfigurator_counts(name, tensor, length):
    model = find_model(name)
    if model.own_weights == "fp8_block" and model.expert_width // tensor % 128:
        pytest.skip("AIConfigurator does not split an expert inside a block of 128")
    oracle = aiconfigurator_model(model, model.own_weights, Layout(tensor=tensor))
    assert model.kv_bytes(length, kv_cache="fp8", tensor=tensor) == oracle.get_kvcache_bytes_per_sequence(length)


@pytest.mark.parametrize("length", [1024, 8192, 65_536])
def test_the_cache_of_deepseek_v4_pro_is_within_a_hundredth_of_what_aiconfigurator_counts(length):
    model = find_model("deepseek-v4-pro")
    oracle = aiconfigurator_model(model, "fp8_mxfp4", Layout()).get_kvcache_bytes_per_sequence(length)
    assert model.kv_bytes(length, kv_cache="fp8") == pytest.approx(oracle, rel=0.01)


# Drafts and names.

EVERY_DRAFT = pytest.mark.parametrize(
    ("model", "method"),
    [
        pytest.param(model, method, id=f"{model.name}-{method}")
        for model in models().values()
        for method in model.drafts
    ],
)


@EVERY_DRAFT
def test_a_step_commits_at_least_one_token_and_at_most_its_drafts_and_one(model, method):
    draft = model.drafts[method]
    assert method in METHODS
    assert method != "none"
    assert 1 <= len(draft.tokens_per_step) <= MAX_DRAFT_LENGTH
    for length, committed in enumerate(draft.tokens_per_step, start=1):
        assert 1 < committed <= length + 1
        assert model.tokens_per_step(Speculation(method=method, draft_length=length)) == committed


@EVERY_DRAFT
def test_the_first_draft_token_is_the_one_most_often_right(model, method):
    series = (1.0, *model.drafts[method].tokens_per_step)
    gains = [after - before for before, after in pairwise(series)]
    assert max(gains) == gains[0]


@EVERY_DRAFT
def test_every_draft_says_where_it_was_measured_and_how_much_of_it(model, method):
    draft = model.drafts[method]
    assert draft.source
    assert "easured" in draft.note
    assert (draft.parameters == 0) == (method == "ngram")


def test_without_speculation_a_step_commits_one_token():
    assert find_model("llama-3.1-405b").tokens_per_step(Speculation()) == 1


def test_a_draft_that_a_model_does_not_have_is_infeasible():
    with pytest.raises(InfeasibleError, match=r"no draft: llama-3\.1-8b has no mtp draft \(known: eagle3\)"):
        find_model("llama-3.1-8b").tokens_per_step(Speculation(method="mtp", draft_length=1))


def test_a_draft_longer_than_was_measured_is_infeasible():
    with pytest.raises(InfeasibleError, match="no acceptance data"):
        find_model("deepseek-r1").tokens_per_step(Speculation(method="mtp", draft_length=4))


def test_an_unknown_model_raises_with_the_nearest_name_first():
    with pytest.raises(UnknownNameError, match="unknown model 'gpt-oss-121b'; valid: gpt-oss-120b, gpt-oss-20b"):
        find_model("gpt-oss-121b")


@EVERY_MODEL
def test_every_model_says_where_its_facts_come_from(model):
    assert "config.json" in model.source


@pytest.mark.parametrize("name", ["qwen3-vl-235b", "kimi-k2.5"])
def test_a_model_that_sees_says_what_of_its_images_is_not_modelled(name):
    assert find_model(name).not_modelled.startswith("Images")

"""What a model's facts must be."""

from dataclasses import replace

import pytest

from search_spaces.models.laws import broken_laws, broken_series
from search_spaces.models.model import Draft, Model, find_model, models

DENSE, SPARSE, LATENT = map(find_model, ("llama-3.3-70b", "gpt-oss-120b", "deepseek-r1"))
NOT_NUMBERS = (float("nan"), float("inf"), -float("inf"))


def laws(model: Model, **changes) -> list[str]:
    return list(broken_laws(replace(model, **changes)))


def of_attention(model: Model, **changes) -> list[str]:
    return laws(model, attention=replace(model.attention, **changes))


@pytest.mark.parametrize("model", models().values(), ids=list(models()))
def test_what_ships_breaks_none(model):
    assert laws(model) == []


@pytest.mark.parametrize(
    "fact", ["layers", "hidden_size", "query_heads", "dense_parameters", "expert_width", "max_context"]
)
@pytest.mark.parametrize("value", [0, -1, -1e12, 1e300, *NOT_NUMBERS])
def test_a_count_that_cannot_be_is_named_with_its_law_and_value(fact, value):
    (found,) = [law for law in laws(DENSE, **{fact: value}) if law.startswith(f"{fact}:")]
    assert found == f"{fact}: `1 <= {fact} <= 1e+18` must hold, but got {value!r}"


@pytest.mark.parametrize("fact", ["expert_parameters", "embedding_parameters", "experts", "experts_per_token"])
@pytest.mark.parametrize("value", [-1, 1e300, *NOT_NUMBERS])
def test_what_may_be_nought_may_not_be_less(fact, value):
    assert any(law.startswith(f"{fact}: `0 <= {fact} <= 1e+18` must hold") for law in laws(SPARSE, **{fact: value}))


@pytest.mark.parametrize(
    ("model", "changes", "found"),
    [
        (SPARSE, {"experts_per_token": 129}, "`1 <= experts_per_token <= experts` must hold with 128 experts"),
        (SPARSE, {"experts_per_token": 0}, "`1 <= experts_per_token <= experts` must hold with 128 experts, but got 0"),
        (DENSE, {"experts_per_token": 2}, "`0 <= experts_per_token <= experts` must hold with 0 experts, but got 2"),
        (DENSE, {"expert_parameters": 1e9}, "expert_parameters: must be above 0 with experts, and 0 without"),
        (SPARSE, {"expert_parameters": 0}, "expert_parameters: must be above 0 with experts, and 0 without"),
        (DENSE, {"weights": ()}, "weights: needs at least one number format"),
        (DENSE, {"weights": ("bf16", "bf16")}, "weights: must name each format once, but got bf16, bf16"),
        (DENSE, {"silicon_name": ""}, "silicon_name: must not be empty"),
    ],
)  # fmt: skip
def test_laws_between_facts_are_checked(model, changes, found):
    assert any(found in law for law in laws(model, **changes))


@pytest.mark.parametrize(
    ("model", "changes", "found"),
    [
        (DENSE, {"kv_heads": 128}, "kv_heads: must divide the 64 query_heads, but got 128"),
        (DENSE, {"kv_heads": 7}, "kv_heads: must divide the 64 query_heads, but got 7"),
        (DENSE, {"kv_heads": 0}, "`kv_heads >= 1` and `head_dim >= 1` must hold, or `latent_width >= 1`, but"),
        (DENSE, {"head_dim": -128}, "`0 <= head_dim <= 1e+18` must hold, but got -128"),
        (LATENT, {"latent_width": -576}, "`0 <= latent_width <= 1e+18` must hold, but got -576"),
        (DENSE, {"layers_by_ratio": {1: 81}}, "must have at most 80 layers in all, but got 81"),
        (DENSE, {"layers_by_ratio": {0: 80}}, "`ratio >= 1` and `layers >= 0` must hold, but got 0: 80"),
        (DENSE, {"layers_by_ratio": {1: -80}}, "`ratio >= 1` and `layers >= 0` must hold, but got 1: -80"),
        (DENSE, {"layers_by_ratio": {}}, "needs a layer that keeps a cache, whole or in a window"),
        (SPARSE, {"window": 0}, "`window >= 1` must hold with window_layers, but got 0"),
        (SPARSE, {"window_layers": 37}, "`window_layers <= 36` (layers) must hold, but got 37"),
        (LATENT, {"state_bytes": float("nan")}, "`0 <= state_bytes <= 1e+18` must hold, but got nan"),
    ],
)  # fmt: skip
def test_laws_of_the_cache_are_checked(model, changes, found):
    assert any(law.startswith("attention.") and found in law for law in of_attention(model, **changes))


@pytest.mark.parametrize(
    ("series", "found"),
    [
        ((0.9,), "`1 <= tokens per step <= 2` must hold at draft length 1, but got 0.9"),
        ((1.5, 3.2), "`1 <= tokens per step <= 3` must hold at draft length 2, but got 3.2"),
        ((float("nan"),), "`1 <= tokens per step <= 2` must hold at draft length 1, but got nan"),
        ((1.8, 1.5), "tokens per step must not fall with the draft length, but got 1.5 at 2 after 1.8"),
    ],
)
def test_a_draft_that_cannot_be_is_refused(series, found):
    assert list(broken_series(series)) == [found]
    drafts = {"mtp": Draft(parameters=1e9, tokens_per_step=series, source="made up")}
    assert laws(DENSE, drafts=drafts) == [f"drafts.mtp.tokens_per_step: {found}"]


def test_a_series_may_fall_by_what_two_measurements_differ():
    assert list(broken_series((1.8, 2.55, 2.54))) == []


def test_drafts_have_a_method_lengths_and_no_less_than_no_parameters():
    broken = Draft(parameters=-1, tokens_per_step=(), source="made up")
    assert laws(DENSE, drafts={"none": broken}) == [
        "drafts: must name methods that draft, but got none",
        "drafts.none.parameters: `0 <= parameters <= 1e+18` must hold, but got -1",
        "drafts.none.tokens_per_step: needs 1 to 8 draft lengths, but got 0",
    ]

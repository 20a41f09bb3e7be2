"""What the engines refuse: each law at its edge, worked from the documentation that engine_laws.py names."""

import pytest

from search_spaces.config import (
    METHODS,
    Batching,
    Disaggregation,
    EngineName,
    Layout,
    Method,
    ServingConfig,
    Speculation,
)
from search_spaces.engines.engine import engine_names, engines, find_engine
from search_spaces.engines.law import drafts_while_prefilling
from search_spaces.engines.laws import unsupported

ONE_GPU = Layout()
LIMITS = Batching()
EVERY_ENGINE = pytest.mark.parametrize("engine", engine_names())
EVERY_DRAFT = pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])


def served(
    engine: EngineName,
    layout: Layout = ONE_GPU,
    *,
    prefill: Layout | None = None,
    method: Method = "none",
    batching: Batching = LIMITS,
) -> ServingConfig:
    return ServingConfig(
        engine=find_engine(engine),
        layout=layout,
        batching=batching,
        speculation=Speculation(method=method, draft_length=0 if method == "none" else 2),
        disaggregation=Disaggregation(prefill_layout=prefill) if prefill else None,
    )


@EVERY_ENGINE
@pytest.mark.parametrize(
    "layout",
    [Layout(), Layout(tensor=8), Layout(tensor=4, pipeline=2), Layout(attention_dp=8, expert=8, replicas=9)],
    ids=str,
)
def test_the_layouts_that_everyone_serves_are_never_refused(engine, layout):
    assert unsupported(served(engine, layout)) is None


@EVERY_ENGINE
@EVERY_DRAFT
def test_no_engine_speculates_over_pipeline_stages(engine, method):
    reason = unsupported(served(engine, Layout(tensor=2, pipeline=2), method=method))
    assert f"{method} needs pipeline 1, but the workers have 2" in reason
    assert unsupported(served(engine, Layout(tensor=2), method=method)) is None


@pytest.mark.parametrize("engine", ["trtllm", "sglang"])
@pytest.mark.parametrize(("method", "carried"), [("none", False), ("mtp", True), ("eagle3", True), ("ngram", False)])
def test_prefill_workers_may_have_stages_unless_they_carry_the_draft(engine, method, carried):
    config = served(engine, prefill=Layout(pipeline=2), method=method)
    assert drafts_while_prefilling(config) == carried
    reason = unsupported(config)
    assert (reason is not None and "the prefill workers have 2" in reason) == carried


@pytest.mark.parametrize("prefill", [None, Layout()], ids=["aggregated", "disaggregated"])
def test_tensorrt_llm_splits_attention_by_tensor_or_by_data_but_not_by_both(prefill):
    assert unsupported(served("trtllm", Layout(attention_dp=4, expert=2), prefill=prefill)) is None
    reason = unsupported(served("trtllm", Layout(tensor=2, attention_dp=4), prefill=prefill))
    assert "attention_dp 4 needs tensor 1" in reason
    assert reason.endswith("have 2")


def test_a_law_holds_for_prefill_workers_too():
    reason = unsupported(served("trtllm", prefill=Layout(tensor=2, attention_dp=2)))
    assert reason.endswith("the prefill workers have 2")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_other_engines_split_attention_by_both(engine):
    assert unsupported(served(engine, Layout(tensor=2, attention_dp=4, expert=8))) is None


@pytest.mark.parametrize(("expert", "expressible"), [(1, True), (2, False), (4, False), (8, True)])
def test_vllm_keeps_experts_whole_or_splits_each_over_all(expert, expressible):
    reason = unsupported(served("vllm", Layout(tensor=2, attention_dp=4, expert=expert)))
    assert (reason is None) == expressible
    if reason:
        assert f"expert must be 1 or tensor x attention_dp = 8, but the workers have {expert}" in reason


@pytest.mark.parametrize("engine", ["trtllm", "sglang"])
def test_the_other_engines_split_experts_by_any_divisor(engine):
    assert unsupported(served(engine, Layout(tensor=8, expert=2))) is None


def test_vllm_counts_the_sequences_of_every_stage_against_its_token_limit():
    limits = Batching(max_sequences=1024, max_batched_tokens=2048)
    assert unsupported(served("vllm", Layout(pipeline=2), batching=limits)) is None
    reason = unsupported(served("vllm", Layout(pipeline=4), batching=limits))
    assert "4096 must not exceed max_batched_tokens, but the workers have 2048" in reason
    assert unsupported(served("sglang", Layout(pipeline=4), batching=limits)) is None


@pytest.mark.parametrize(
    ("prefill", "decode", "whose"),
    [(Layout(pipeline=2), Layout(), "prefill"), (Layout(), Layout(pipeline=2), "decode")],
)
def test_vllm_hands_no_cache_over_from_or_to_pipeline_stages(prefill, decode, whose):
    assert f"the {whose} workers have 2" in unsupported(served("vllm", decode, prefill=prefill))
    assert unsupported(served("vllm", decode)) is None


@pytest.mark.parametrize(("prefill", "decode", "possible"), [(4, 1, True), (2, 2, True), (4, 2, False), (1, 2, False)])
def test_sglang_hands_the_cache_over_to_one_stage_or_to_as_many_as_there_were(prefill, decode, possible):
    reason = unsupported(served("sglang", Layout(pipeline=decode), prefill=Layout(pipeline=prefill)))
    assert (reason is None) == possible


def test_tensorrt_llm_hands_the_cache_over_between_any_numbers_of_stages():
    assert unsupported(served("trtllm", Layout(pipeline=2), prefill=Layout(pipeline=4))) is None


def test_sglang_looks_n_grams_up_without_attention_dp_only():
    layout = Layout(attention_dp=4, expert=4)
    assert "attention_dp must be 1, but is 4" in unsupported(served("sglang", layout, method="ngram"))
    assert unsupported(served("sglang", layout, method="eagle3")) is None
    assert unsupported(served("vllm", layout, method="ngram")) is None
    assert unsupported(served("trtllm", layout, method="ngram")) is None


@EVERY_ENGINE
def test_every_engine_has_its_laws(engine):
    assert engine in engines()
    assert unsupported(served(engine, Layout(pipeline=2), method="ngram"))

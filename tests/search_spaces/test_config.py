"""ServingConfig: what a configuration is, and that it survives being written down."""

import pytest

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    Batching,
    Disaggregation,
    Engine,
    Layout,
    ServingConfig,
    Speculation,
)


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

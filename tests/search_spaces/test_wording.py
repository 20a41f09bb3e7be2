"""How configurations are put to people."""

import pytest

from search_spaces.config import (
    METHODS,
    Batching,
    Disaggregation,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
)
from search_spaces.engines.engine import find_engine
from search_spaces.engines.folders import engine_names
from search_spaces.models.model import KV_BYTES, WEIGHT_BYTES
from search_spaces.wording import METHODS as METHOD_NAMES
from search_spaces.wording import WEIGHTS, in_words, plural

TRTLLM = find_engine("trtllm")


@pytest.mark.parametrize(("count", "text"), [(0, "0 GPUs"), (1, "1 GPU"), (2, "2 GPUs")])
def test_plurals(count, text):
    assert plural(count, "GPU") == text


def test_every_number_format_method_and_engine_has_words():
    assert set(WEIGHTS) == set(WEIGHT_BYTES)
    assert set(METHOD_NAMES) == set(METHODS)
    for name in engine_names():
        assert in_words(ServingConfig(engine=find_engine(name)))


def test_a_configuration_in_words():
    config = ServingConfig(
        engine=TRTLLM,
        layout=Layout(tensor=2, expert=2, replicas=4),
        batching=Batching(max_sequences=512, max_batched_tokens=8192),
        precision=Precision(weights="mxfp4_mxfp8", kv_cache="fp8"),
        speculation=Speculation(method="eagle3", draft_length=2),
    )
    assert in_words(config) == (
        "TensorRT-LLM 1.3.0rc20, 4 workers of 2 GPUs (tp2·ep2 x4), MXFP4 experts with MXFP8 activations, FP8 KV cache, "
        "Eagle3 speculation with draft length 2, at most 512 sequences and 8192 tokens in a pass"
    )


def test_a_disaggregated_configuration_names_both_kinds_of_worker():
    config = ServingConfig(
        engine=TRTLLM,
        layout=Layout(tensor=4),
        disaggregation=Disaggregation(prefill_layout=Layout(tensor=2, replicas=2)),
    )
    assert "2 workers of 2 GPUs for prefill and 1 worker of 4 GPUs for decode (2P1D tp2 > tp4 " in in_words(config)
    assert "no speculation" in in_words(config)


@pytest.mark.parametrize("kv_cache", KV_BYTES)
def test_every_kv_cache_has_words(kv_cache):
    words = in_words(ServingConfig(engine=TRTLLM, precision=Precision(kv_cache=kv_cache)))
    assert {"bf16": "16-bit KV cache", "fp8": "FP8 KV cache"}[kv_cache] in words

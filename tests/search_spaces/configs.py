"""Configurations of every kind, for Hypothesis, whether or not an engine can serve them."""

from hypothesis import strategies as st

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    METHODS,
    Batching,
    Disaggregation,
    Engine,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
)
from search_spaces.models.model import KV_BYTES, WEIGHT_BYTES

SIZES = st.integers(1, 72)
# Versions that YAML would read as numbers, dates or nothing at all, were they not quoted.
VERSIONS = st.sampled_from(["1.3.0rc20", "0.24.0", "0.24", "1e3", "0x10", "2026-07-31", "null", "no", "~", ""])
LAYOUTS = st.builds(Layout, tensor=SIZES, pipeline=SIZES, attention_dp=SIZES, expert=SIZES, replicas=SIZES)


@st.composite
def batchings(draw) -> Batching:
    sequences = draw(st.integers(1, 4096))
    return Batching(
        max_sequences=sequences,
        max_batched_tokens=draw(st.integers(sequences, 65536)),
        receive_interval=draw(st.integers(1, 64)),
    )


@st.composite
def speculations(draw) -> Speculation:
    method = draw(st.sampled_from(METHODS))
    return Speculation(method=method, draft_length=0 if method == "none" else draw(st.integers(1, MAX_DRAFT_LENGTH)))


CONFIGS = st.builds(
    ServingConfig,
    engine=st.builds(Engine, name=st.sampled_from(("trtllm", "vllm", "sglang")), version=VERSIONS),
    layout=LAYOUTS,
    batching=batchings(),
    precision=st.builds(
        Precision, weights=st.sampled_from(sorted(WEIGHT_BYTES)), kv_cache=st.sampled_from(sorted(KV_BYTES))
    ),
    speculation=speculations(),
    disaggregation=st.none() | st.builds(Disaggregation, prefill_layout=LAYOUTS, prefill_batching=batchings()),
    variant=st.none() | st.text(min_size=1),
)

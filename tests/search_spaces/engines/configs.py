"""Configurations that an engine can be started with, for Hypothesis."""

from hypothesis import strategies as st

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    METHODS,
    Batching,
    Disaggregation,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
)
from search_spaces.engines.engine import engine_names, find_engine

powers = st.sampled_from([1, 2, 4, 8])


layouts = st.builds(
    Layout, tensor=powers, pipeline=powers, attention_dp=powers, expert=powers, replicas=st.integers(1, 9)
)
batchings = st.builds(Batching, max_sequences=st.integers(1, 2048), max_batched_tokens=st.integers(2048, 16384))

speculations = st.just(Speculation()) | st.builds(
    Speculation,
    method=st.sampled_from([method for method in METHODS if method != "none"]),
    draft_length=st.integers(1, MAX_DRAFT_LENGTH),
)

configs = st.builds(
    ServingConfig,
    engine=st.sampled_from(engine_names()).map(find_engine),
    layout=layouts,
    batching=batchings,
    precision=st.builds(Precision),
    speculation=speculations,
    disaggregation=st.none() | st.builds(Disaggregation, prefill_layout=layouts, prefill_batching=batchings),
)

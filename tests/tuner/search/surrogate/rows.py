"""Features of small configurations, for the tests of this folder."""

from search_spaces.config import Batching, Disaggregation, Layout, Precision, ServingConfig
from search_spaces.engines.engine import find_engine
from tuner.search.surrogate.features import Features, FeatureTable, features_of

TRTLLM, VLLM = find_engine("trtllm"), find_engine("vllm")


def a_config(tensor: int = 1, seats: int = 64, *, kv_cache="fp8", engine=TRTLLM, **changes) -> ServingConfig:
    return ServingConfig(
        engine=engine,
        layout=Layout(tensor=tensor),
        batching=Batching(max_sequences=seats),
        precision=Precision(weights="mxfp4", kv_cache=kv_cache),
        **changes,
    )


def features(tensor: int = 1, seats: int = 64, **changes) -> Features:
    return features_of(a_config(tensor, seats, **changes), seats)


def with_pool(tensor: int = 1, tokens: int = 8192, *, decode_tensor: int = 1) -> Features:
    pool = Disaggregation(prefill_layout=Layout(tensor=tensor), prefill_batching=Batching(max_batched_tokens=tokens))
    return features(decode_tensor, disaggregation=pool)


TABLE = FeatureTable.of([features(tensor, seats) for tensor in (1, 2, 4, 8) for seats in (16, 64, 256)])

"""What an engine serves with when nobody tunes it: the baseline that a search has to beat."""

from collections.abc import Iterator

from search_spaces.config import Batching, Engine, Layout, Precision, ServingConfig
from search_spaces.engine import engines
from search_spaces.model import Model


def default_configs(model: Model, engine: Engine, gpus: int) -> Iterator[ServingConfig]:
    """Engine defaults from the smallest tensor-parallel worker up; the first that can be served is the default.

    The checkpoint's own number format, a 16-bit KV cache (the engines' `auto`), the engine's own batch limits, no
    speculation, as many replicas as the GPUs hold. Starting at the smallest worker makes the baseline hard to beat:
    it is what an operator who reads the memory requirement would start, not the worst case. Where two layouts of
    the experts are possible, splitting each expert comes before whole experts on different GPUs; FP8 KV cache comes
    last, for models with no other.
    """
    facts = engines()[engine.name]
    batching = Batching(
        max_sequences=facts.default_max_sequences,
        max_batched_tokens=facts.default_max_batched_tokens,
    )
    tensors = [size for size in (1, 2, 4, 8) if size <= gpus]
    for kv_cache in ("bf16", "fp8"):
        for tensor in tensors:
            for expert in (1, tensor) if model.is_moe and tensor > 1 else (1,):
                yield ServingConfig(
                    engine=engine,
                    layout=Layout(tensor=tensor, expert=expert, replicas=gpus // tensor),
                    batching=batching,
                    precision=Precision(weights=model.own_weights, kv_cache=kv_cache),  # type: ignore[arg-type]
                )

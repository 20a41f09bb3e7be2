"""What an engine serves with when nobody tunes it: the baseline that a search has to beat."""

import itertools
from collections.abc import Iterator

from search_spaces.config import Batching, Engine, Layout, Precision, ServingConfig, Weights
from search_spaces.engine import engines
from search_spaces.model import KV_BYTES, Model


def default_configs(model: Model, engine: Engine, gpus: int) -> Iterator[ServingConfig]:
    """Engine defaults from the smallest tensor-parallel worker up; the first that can be served is the default.

    The checkpoint's own number format, a 16-bit KV cache (the engines' `auto`), the engine's own batch limits, no
    speculation, as many replicas as the GPUs hold. Starting at the smallest worker makes the baseline hard to beat:
    it is what an operator who reads the memory requirement would start, not the worst case. Where two layouts of
    the experts are possible, splitting each expert comes before whole experts on different GPUs; FP8 KV cache comes
    last, for models with no other. gpt-oss's MXFP4 experts are fed MXFP8 activations where the engine can.
    """
    facts = engines()[engine.name]
    batching = Batching(
        max_sequences=facts.default_max_sequences,
        max_batched_tokens=facts.default_max_batched_tokens,
    )
    tensors = [size for size in (1, 2, 4, 8) if size <= gpus]
    for kv_cache, tensor, weights in itertools.product(KV_BYTES, tensors, _loaded_from_checkpoint(model)):
        for expert in (1, tensor) if model.is_moe and tensor > 1 else (1,):
            yield ServingConfig(
                engine=engine,
                layout=Layout(tensor=tensor, expert=expert, replicas=gpus // tensor),
                batching=batching,
                precision=Precision(weights=weights, kv_cache=kv_cache),
            )


def _loaded_from_checkpoint(model: Model) -> tuple[Weights, ...]:
    """The recipes that load the published checkpoint as it is, the faster first."""
    return ("mxfp4_mxfp8", "mxfp4") if model.own_weights == "mxfp4" else (model.own_weights,)

"""What an engine serves with when nobody tunes it: the baseline that a search has to beat."""

import itertools
from collections.abc import Iterator

from search_spaces.config import Batching, Engine, Layout, Precision, ServingConfig
from search_spaces.engines.checkpoints import own_formats
from search_spaces.engines.engine import facts_of
from search_spaces.models.model import KV_BYTES, Model


def default_configs(model: Model, engine: Engine, gpus: int) -> Iterator[Iterator[ServingConfig]]:
    """The engine's defaults on workers of 1, 2, 4 and 8 GPUs; of each size the first that can be served counts.

    An operator who tunes nothing still has to choose how many GPUs hold the model, so the baseline may take the best
    of these. All else is default: the checkpoint's own number format, a 16-bit KV cache (the engines' `auto`), the
    engine's own batch limits, no speculation, as many replicas as the GPUs hold. Where kernels for it are missing,
    whole experts on different GPUs come after split experts, and an FP8 KV cache after a 16-bit one.
    """
    for tensor in (size for size in (1, 2, 4, 8) if size <= gpus):
        yield _of_size(model, engine, tensor, replicas=gpus // tensor)


def _of_size(model: Model, engine: Engine, tensor: int, *, replicas: int) -> Iterator[ServingConfig]:
    facts = facts_of(engine)
    batching = Batching(
        max_sequences=facts.default_max_sequences,
        max_batched_tokens=facts.default_max_batched_tokens,
    )
    experts = (1, tensor) if model.is_moe and tensor > 1 else (1,)
    for kv_cache, weights, expert in itertools.product(KV_BYTES, own_formats(model), experts):
        yield ServingConfig(
            engine=engine,
            layout=Layout(tensor=tensor, expert=expert, replicas=replicas),
            batching=batching,
            precision=Precision(weights=weights, kv_cache=kv_cache),
        )

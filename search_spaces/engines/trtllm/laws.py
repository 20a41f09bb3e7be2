"""What TensorRT-LLM cannot express or refuses to start, whatever the model: from its sources (1.3.0rc20)."""

from collections.abc import Sequence

from search_spaces.config import ServingConfig
from search_spaces.engines.law import Law, Pool, speculation_without_pipeline


def attention(_: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """`enable_attention_dp` makes attention data-parallel over all of `tensor_parallel_size`.

    docs/source/features/parallel-strategy.md: with it, attention weights are replicated on every GPU.
    """
    for pool in pools:
        if pool.layout.attention_dp > 1 and pool.layout.tensor > 1:
            return (
                "trtllm makes attention data-parallel over the whole worker or not at all: attention_dp "
                f"{pool.layout.attention_dp} needs tensor 1, but {pool.name} have {pool.layout.tensor}"
            )
    return None


LAWS: tuple[Law, ...] = (attention, speculation_without_pipeline)

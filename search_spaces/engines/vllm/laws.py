"""What vLLM cannot express or refuses to start, whatever the model: from the sources of 0.24 and 0.27."""

from collections.abc import Sequence

from search_spaces.config import ServingConfig
from search_spaces.engines.law import Law, Pool, speculation_without_pipeline


def experts(_: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """`--enable-expert-parallel` spreads experts over tensor x data; without it these split every expert.

    FusedMoEParallelConfig.make in model_executor/layers/fused_moe/config.py.
    """
    for pool in pools:
        ranks = pool.layout.tensor * pool.layout.attention_dp
        if pool.layout.expert not in {1, ranks}:
            return (
                "vllm keeps every expert whole or splits it over all GPUs of a stage: expert must be 1 or "
                f"tensor x attention_dp = {ranks}, but {pool.name} have {pool.layout.expert}"
            )
    return None


def sequences(_: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """`--max-num-seqs` counts the batches of all pipeline stages, and may not exceed the token limit.

    `running` in v1/core/sched/scheduler.py; SchedulerConfig.verify_max_model_len in config/scheduler.py.
    """
    for pool in pools:
        sequences = pool.batching.max_sequences * pool.layout.pipeline
        if sequences > pool.batching.max_batched_tokens:
            return (
                f"vllm counts the sequences of all pipeline stages together: {sequences} must not exceed "
                f"max_batched_tokens, but {pool.name} have {pool.batching.max_batched_tokens}"
            )
    return None


def handover(config: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """The NixlConnector hands the KV cache over between workers of one pipeline stage each.

    distributed/kv_transfer/kv_connector/v1/nixl/base_worker.py: 0.24 keys its handshake by tensor rank alone;
    0.27 refuses pipelines in decode workers, and has them in prefill workers for its push variant only.
    """
    for pool in pools:
        if config.disaggregation and pool.layout.pipeline > 1:
            return (
                "vllm hands the KV cache over between workers of one pipeline stage only: pipeline must "
                f"be 1, but {pool.name} have {pool.layout.pipeline}"
            )
    return None


def receive_interval(_: ServingConfig, pools: Sequence[Pool]) -> str | None:
    if any(pool.batching.receive_interval > 1 for pool in pools):
        return "vllm looks at arrivals in every step: receive_interval must be 1"
    return None


LAWS: tuple[Law, ...] = (receive_interval, experts, sequences, handover, speculation_without_pipeline)

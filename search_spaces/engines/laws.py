"""What each engine cannot express or refuses to start, whatever the model: laws from its own words and code.

Read in TensorRT-LLM's documentation and sources (1.3.0 release candidates), vLLM 0.24 and 0.27, SGLang 0.5.14
and 0.5.16. Each law says where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_spaces.config import Batching, EngineName, Layout, ServingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """One kind of worker, and whether it carries the draft."""

    name: str
    layout: Layout
    batching: Batching
    drafts: bool


Law = Callable[[ServingConfig, Sequence[_Pool]], str | None]


def unsupported(config: ServingConfig) -> str | None:
    """Why the engine cannot serve `config`, in a sentence; None where nothing is known against it."""
    pools = _pools(config)
    reasons = (law(config, pools) for law in LAWS[config.engine.name])
    return next((reason for reason in reasons if reason), None)


def drafts_while_prefilling(config: ServingConfig) -> bool:
    """Whether prefill workers, too, have to carry the draft: where it has layers in the KV cache handed over.

    vLLM: NixlConnector compatibility matrix, note 1 (prefill and decode agree on EAGLE and MTP drafts).
    SGLang: build_disagg_draft_input takes the draft's state from the prefill worker. TensorRT-LLM: its
    disaggregated benchmark configs carry speculative_config on both sides, for the KV layouts must match.
    """
    return config.speculation.method in {"mtp", "eagle3"}


def _pools(config: ServingConfig) -> list[_Pool]:
    speculates = config.speculation.method != "none"
    if config.disaggregation is None:
        return [_Pool(name="the workers", layout=config.layout, batching=config.batching, drafts=speculates)]
    prefill = config.disaggregation
    return [
        _Pool(
            name="the prefill workers",
            layout=prefill.prefill_layout,
            batching=prefill.prefill_batching,
            drafts=drafts_while_prefilling(config),
        ),
        _Pool(name="the decode workers", layout=config.layout, batching=config.batching, drafts=speculates),
    ]


def _speculation_without_pipeline(config: ServingConfig, pools: Sequence[_Pool]) -> str | None:
    """No engine combines speculation with pipeline parallelism.

    TensorRT-LLM: docs/source/features/feature-combination-matrix.md says "No" for every way of speculating.
    vLLM: docs/features/speculative_decoding, known incompatibilities (written for <= 0.15); MTP heads lack
    SupportsPP, so ModelConfig.verify_with_parallel_config refuses them (issues 49355, 52069); EAGLE-3 is
    listed as unsupported in config/vllm.py up to 0.27; for n-gram there is the documentation only. SGLang:
    asserted in ServerArgs.check_server_args.
    """
    for pool in pools:
        if pool.drafts and pool.layout.pipeline > 1:
            return (
                f"{config.engine.name} speculates without pipeline parallelism only: "
                f"{config.speculation.method} needs pipeline 1, but {pool.name} have {pool.layout.pipeline}"
            )
    return None


def _trtllm_attention(_: ServingConfig, pools: Sequence[_Pool]) -> str | None:
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


def _vllm_experts(_: ServingConfig, pools: Sequence[_Pool]) -> str | None:
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


def _vllm_sequences(_: ServingConfig, pools: Sequence[_Pool]) -> str | None:
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


def _vllm_handover(config: ServingConfig, pools: Sequence[_Pool]) -> str | None:
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


def _sglang_ngram(config: ServingConfig, _: Sequence[_Pool]) -> str | None:
    """arg_groups/speculative_hook.py: ngram speculative decoding does not support dp attention."""
    ranks = config.layout.attention_dp
    if config.speculation.method == "ngram" and ranks > 1:
        return f"sglang has no ngram speculation with attention DP: attention_dp must be 1, but is {ranks}"
    return None


def _sglang_handover(config: ServingConfig, _: Sequence[_Pool]) -> str | None:
    """disaggregation/common/conn.py: decode has as many pipeline stages as prefill, or one."""
    if config.disaggregation is None:
        return None
    prefill, decode = config.disaggregation.prefill_layout.pipeline, config.layout.pipeline
    if decode not in {1, prefill}:
        return (
            "sglang hands the KV cache over to 1 pipeline stage or to as many as prefill has: pipeline must "
            f"be 1 or {prefill}, but the decode workers have {decode}"
        )
    return None


def _receive_interval(config: ServingConfig, pools: Sequence[_Pool]) -> str | None:
    """One engine, vLLM, looks at arrivals before every step; SGLang's interval excludes attention DP.

    managers/scheduler_recv_skipper.py asserts `not server_args.enable_dp_attention`. TensorRT-LLM waits for
    batch_wait_timeout_iters, with attention DP for attention_dp_config.timeout_iters.
    """
    for pool in pools:
        if pool.batching.receive_interval == 1:
            continue
        if config.engine.name == "vllm":
            return "vllm looks at arrivals in every step: receive_interval must be 1"
        if config.engine.name == "sglang" and pool.layout.attention_dp > 1:
            return "sglang looks at arrivals in every step with attention DP: receive_interval must be 1"
    return None


LAWS: dict[EngineName, tuple[Law, ...]] = {
    "trtllm": (_receive_interval, _trtllm_attention, _speculation_without_pipeline),
    "vllm": (_receive_interval, _vllm_experts, _vllm_sequences, _vllm_handover, _speculation_without_pipeline),
    "sglang": (_receive_interval, _sglang_ngram, _sglang_handover, _speculation_without_pipeline),
}

"""Law: why an engine cannot serve a configuration, asked of its pools of workers; and the law that all share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_spaces.config import Batching, Layout, ServingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One kind of worker, and whether it carries the draft."""

    name: str
    layout: Layout
    batching: Batching
    drafts: bool


Law = Callable[[ServingConfig, Sequence[Pool]], str | None]
"""Why an engine cannot serve a configuration, in a sentence; None where nothing is known against it."""


def drafts_while_prefilling(config: ServingConfig) -> bool:
    """Whether prefill workers, too, have to carry the draft: where it has layers in the KV cache handed over.

    vLLM: NixlConnector compatibility matrix, note 1 (prefill and decode agree on EAGLE and MTP drafts).
    SGLang: build_disagg_draft_input takes the draft's state from the prefill worker. TensorRT-LLM: its
    disaggregated benchmark configs carry speculative_config on both sides, for the KV layouts must match.
    """
    return config.speculation.method in {"mtp", "eagle3"}


def pools_of(config: ServingConfig) -> list[Pool]:
    speculates = config.speculation.method != "none"
    if config.disaggregation is None:
        return [Pool(name="the workers", layout=config.layout, batching=config.batching, drafts=speculates)]
    prefill = config.disaggregation
    return [
        Pool(
            name="the prefill workers",
            layout=prefill.prefill_layout,
            batching=prefill.prefill_batching,
            drafts=drafts_while_prefilling(config),
        ),
        Pool(name="the decode workers", layout=config.layout, batching=config.batching, drafts=speculates),
    ]


def speculation_without_pipeline(config: ServingConfig, pools: Sequence[Pool]) -> str | None:
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

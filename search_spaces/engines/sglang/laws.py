"""What SGLang cannot express or refuses to start, whatever the model: from the sources of 0.5.14 and 0.5.16."""

from collections.abc import Sequence

from search_spaces.config import ServingConfig
from search_spaces.engines.law import Law, Pool, speculation_without_pipeline


def ngram(config: ServingConfig, _: Sequence[Pool]) -> str | None:
    """arg_groups/speculative_hook.py: ngram speculative decoding does not support dp attention."""
    ranks = config.layout.attention_dp
    if config.speculation.method == "ngram" and ranks > 1:
        return f"sglang has no ngram speculation with attention DP: attention_dp must be 1, but is {ranks}"
    return None


def handover(config: ServingConfig, _: Sequence[Pool]) -> str | None:
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


def receive_interval(_: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """managers/scheduler_recv_skipper.py asserts `not server_args.enable_dp_attention`."""
    if any(pool.batching.receive_interval > 1 and pool.layout.attention_dp > 1 for pool in pools):
        return "sglang looks at arrivals in every step with attention DP: receive_interval must be 1"
    return None


LAWS: tuple[Law, ...] = (receive_interval, ngram, handover, speculation_without_pipeline)

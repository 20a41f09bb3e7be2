"""Launch: how the published benchmark scripts started each engine, where a recorded row does not say it."""

import datetime
from dataclasses import dataclass

from search_spaces.config import EngineName, KvCache, Weights

MINIMAX_FP8_CACHE = datetime.date(2026, 4, 3)
"""From this day minimaxm2.5_fp8_b200.sh sets --kv-cache-dtype fp8 and --max-num-batched-tokens (commit bddbf4031)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Settings of one recorded run. `receive_interval` is SGLang's --scheduler-recv-interval."""

    max_sequences: int
    max_batched_tokens: int
    kv_cache: KvCache
    receive_interval: int = 1


def launch(
    engine: EngineName,
    *,
    model: str,
    weights: Weights,
    gpus: int,
    input_tokens: int,
    concurrency: int,
    date: datetime.date | None,
    disaggregated: bool,
) -> Launch:
    """As written in SemiAnalysisAI/InferenceX, benchmarks/single_node/*_b200*.sh @6a5dad463e (2026-03-23).

    Disaggregated runs are started by recipes that are not in that repository: they get the aggregated settings of
    the engine without the wait for arrivals.
    """
    if engine == "trtllm":
        return _trtllm(model, input_tokens, concurrency)
    if engine == "sglang":
        return _sglang(weights, gpus, concurrency, disaggregated=disaggregated)
    return _vllm(model, input_tokens, concurrency, date)


def _trtllm(model: str, input_tokens: int, concurrency: int) -> Launch:
    """dsr1_fp4_b200_trt.sh, gptoss_fp4_b200_trt.sh; 70b_fp8_b200_trt_slurm.sh (October 2025)."""
    if model.startswith("gpt-oss"):
        return Launch(max_sequences=512, max_batched_tokens=20000, kv_cache="fp8")
    if model.startswith("llama"):
        return Launch(max_sequences=2048, max_batched_tokens=16384, kv_cache="fp8")
    tokens = max(8192, (concurrency + input_tokens + 64 + 63) // 64 * 64)
    return Launch(max_sequences=2048, max_batched_tokens=tokens, kv_cache="fp8")


def _sglang(weights: Weights, gpus: int, concurrency: int, *, disaggregated: bool) -> Launch:
    """dsr1_fp8_b200.sh, dsr1_fp4_b200.sh: decode steps between two looks at the arrivals are 10, or 30 from 16 on."""
    node = 8
    small = weights == "fp8_block" and gpus < node
    often = small or concurrency < 16  # noqa: PLR2004 the scripts' own bound
    if weights == "nvfp4":
        sequences, tokens = 256, 16384
    else:
        sequences, tokens = (32, 8192) if small else (128, 32768)
    return Launch(
        max_sequences=sequences,
        max_batched_tokens=tokens,
        kv_cache="fp8",
        receive_interval=1 if disaggregated else (10 if often else 30),
    )


def _vllm(model: str, input_tokens: int, concurrency: int, date: datetime.date | None) -> Launch:
    """gptoss_fp4_b200.sh, kimik2.5_fp4_b200.sh, minimaxm2.5_fp8_b200.sh and minimaxm2.5_fp4_b200.sh."""
    if model.startswith("gpt-oss"):
        return Launch(max_sequences=512, max_batched_tokens=8192, kv_cache="fp8")
    if model.startswith("kimi"):
        return Launch(max_sequences=concurrency, max_batched_tokens=8192, kv_cache="bf16")
    if model.startswith("minimax") and not (date and date < MINIMAX_FP8_CACHE):
        return Launch(max_sequences=1024, max_batched_tokens=2 * input_tokens, kv_cache="fp8")
    cache: KvCache = "fp8" if model.startswith("llama") else "bf16"
    return Launch(max_sequences=1024, max_batched_tokens=8192, kv_cache=cache)

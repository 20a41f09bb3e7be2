"""Launch: how the published benchmark scripts started each engine, where a recorded row does not say it."""

import csv
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from search_spaces.config import EngineName, KvCache, Layout, Weights

MINIMAX_FP8_CACHE = dt.date(2026, 4, 3)
"""From this day minimaxm2.5_fp8_b200.sh sets --kv-cache-dtype fp8 and --max-num-batched-tokens (commit bddbf4031)."""

NODE_GPUS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Settings of one recorded run, as far as a row does not say them."""

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
    attention_dp: bool,
    input_tokens: int,
    concurrency: int,
    date: dt.date | None,
    disaggregated: bool,
) -> Launch:
    """As written in SemiAnalysisAI/InferenceX, benchmarks/single_node/*_b200*.sh @6a5dad463e (2026-03-23).

    A disaggregated run gets the aggregated settings of its engine without the wait for arrivals, where `recipe` does
    not know better.
    """
    if engine == "trtllm":
        return _trtllm(model, input_tokens, concurrency, gpus=gpus, attention_dp=attention_dp and not disaggregated)
    if engine == "sglang":
        return _sglang(weights, gpus, concurrency, disaggregated=disaggregated)
    return _vllm(model, input_tokens, concurrency, date)


def _trtllm(model: str, input_tokens: int, concurrency: int, *, gpus: int, attention_dp: bool) -> Launch:
    """dsr1_fp4_b200_trt.sh, gptoss_fp4_b200_trt.sh; 70b_fp8_b200_trt_slurm.sh (October 2025).

    With attention DP they set enable_balance, and timeout_iters 60 (gpt-oss: the default, 50): prompts wait until every
    rank has one. The script for Llama sets batch_wait_timeout_iters 20 for 1024 / 1024 tokens on fewer than 8 GPUs.
    """
    if model.startswith("gpt-oss"):
        wait = 50 if attention_dp else 1
        return Launch(max_sequences=512, max_batched_tokens=20000, kv_cache="fp8", receive_interval=wait)
    if model.startswith("llama"):
        wait = 20 if input_tokens == 1024 and gpus < NODE_GPUS else 1  # noqa: PLR2004 the script's own condition
        return Launch(max_sequences=2048, max_batched_tokens=16384, kv_cache="fp8", receive_interval=wait)
    tokens = max(8192, (concurrency + input_tokens + 64 + 63) // 64 * 64)
    wait = 60 if attention_dp else 1
    return Launch(max_sequences=2048, max_batched_tokens=tokens, kv_cache="fp8", receive_interval=wait)


def _sglang(weights: Weights, gpus: int, concurrency: int, *, disaggregated: bool) -> Launch:
    """dsr1_fp8_b200.sh, dsr1_fp4_b200.sh: decode steps between two looks at the arrivals are 10, or 30 from 16 on."""
    small = weights == "fp8_block" and gpus < NODE_GPUS
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


def _vllm(model: str, input_tokens: int, concurrency: int, date: dt.date | None) -> Launch:
    """gptoss_fp4_b200.sh, kimik2.5_fp4_b200.sh, minimaxm2.5_fp8_b200.sh and minimaxm2.5_fp4_b200.sh."""
    if model.startswith("gpt-oss"):
        return Launch(max_sequences=512, max_batched_tokens=8192, kv_cache="fp8")
    if model.startswith("kimi"):
        return Launch(max_sequences=concurrency, max_batched_tokens=8192, kv_cache="bf16")
    if model.startswith("minimax") and not (date and date < MINIMAX_FP8_CACHE):
        return Launch(max_sequences=1024, max_batched_tokens=2 * input_tokens, kv_cache="fp8")
    cache: KvCache = "fp8" if model.startswith("llama") else "bf16"
    return Launch(max_sequences=1024, max_batched_tokens=8192, kv_cache=cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Limits of one scheduler in a disaggregated run's published recipe; None where the recipe leaves a default."""

    prefill_sequences: int | None
    prefill_tokens: int | None
    decode_sequences: int | None


PRECISIONS: Mapping[Weights, str] = {"nvfp4": "fp4", "fp8_block": "fp8"}
RECIPE_KEY = (
    *("engine", "model", "system", "precision", "input_tokens", "output_tokens"),
    *("prefill_workers", "prefill_tensor", "prefill_attention_dp"),
    *("decode_workers", "decode_tensor", "decode_attention_dp"),
)


def recipe(
    engine: EngineName,
    *,
    model: str,
    system: str,
    weights: Weights,
    lengths: tuple[int, int],
    concurrency: int,
    prefill: Layout,
    decode: Layout,
) -> Recipe | None:
    """The recipe of a disaggregated run, by what its row says; None where none is published.

    recipes.csv joins SemiAnalysisAI/InferenceX .github/configs/nvidia-master.yaml (December 2025 to April 2026), which
    names a recipe for each set of workers and concurrencies, with that recipe in NVIDIA/srt-slurm. Where the recipe
    itself is not public, the decode limit is the one in its name (..._batch32_...). SGLang's are divided by its
    attention-DP size, as it does itself; a prefill pass is the smaller of max-prefill-tokens and chunked-prefill-size.
    """
    layouts = (size for layout in (prefill, decode) for size in (layout.replicas, layout.tensor, layout.attention_dp))
    key = (engine, model, system, PRECISIONS.get(weights, ""), *lengths, *layouts, concurrency)
    return _recipes().get(tuple(map(str, key)))


@cache
def _recipes() -> Mapping[tuple[str, ...], Recipe]:
    text = files("runners.recorded").joinpath("recipes.csv").read_text(encoding="utf-8")
    return {
        (*(cells[name] for name in RECIPE_KEY), concurrency): Recipe(
            prefill_sequences=_whole(cells["prefill_sequences"]),
            prefill_tokens=_whole(cells["prefill_tokens"]),
            decode_sequences=_whole(cells["decode_sequences"]),
        )
        for cells in csv.DictReader(text.splitlines())
        for concurrency in cells["concurrency"].split("/")
    }


def _whole(text: str) -> int | None:
    return int(text) if text else None

"""How published benchmark scripts started vLLM: InferenceX's for B200."""

import datetime as dt

from search_spaces.engines.launch import Launch, Run

MINIMAX_FP8_CACHE = dt.date(2026, 4, 3)
"""From this day minimaxm2.5_fp8_b200.sh sets --kv-cache-dtype fp8 and --max-num-batched-tokens (commit bddbf4031)."""


def launch(run: Run) -> Launch:
    """gptoss_fp4_b200.sh, kimik2.5_fp4_b200.sh, minimaxm2.5_fp8_b200.sh and minimaxm2.5_fp4_b200.sh."""
    if run.model.startswith("gpt-oss"):
        return Launch(max_sequences=512, max_batched_tokens=8192, kv_cache="fp8")
    if run.model.startswith("kimi"):
        return Launch(max_sequences=run.concurrency, max_batched_tokens=8192, kv_cache="bf16")
    if run.model.startswith("minimax") and not (run.date and run.date < MINIMAX_FP8_CACHE):
        return Launch(max_sequences=1024, max_batched_tokens=2 * run.input_tokens, kv_cache="fp8")
    return Launch(
        max_sequences=1024, max_batched_tokens=8192, kv_cache="fp8" if run.model.startswith("llama") else "bf16"
    )

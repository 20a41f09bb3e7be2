"""How published benchmark scripts started TensorRT-LLM: InferenceX's for B200."""

from search_spaces.engines.launch import NODE_GPUS, Launch, Run


def launch(run: Run) -> Launch:
    """dsr1_fp4_b200_trt.sh, gptoss_fp4_b200_trt.sh; 70b_fp8_b200_trt_slurm.sh (October 2025).

    With attention DP they set enable_balance, and timeout_iters 60 (gpt-oss: the default, 50): prompts wait until every
    rank has one. The script for Llama sets batch_wait_timeout_iters 20 for 1024 / 1024 tokens on fewer than 8 GPUs.
    """
    balanced = run.attention_dp and not run.disaggregated
    if run.model.startswith("gpt-oss"):
        wait = 50 if balanced else 1
        return Launch(max_sequences=512, max_batched_tokens=20000, kv_cache="fp8", receive_interval=wait)
    if run.model.startswith("llama"):
        wait = 20 if run.input_tokens == 1024 and run.gpus < NODE_GPUS else 1  # noqa: PLR2004 the script's own condition
        return Launch(max_sequences=2048, max_batched_tokens=16384, kv_cache="fp8", receive_interval=wait)
    tokens = max(8192, (run.concurrency + run.input_tokens + 64 + 63) // 64 * 64)
    wait = 60 if balanced else 1
    return Launch(max_sequences=2048, max_batched_tokens=tokens, kv_cache="fp8", receive_interval=wait)

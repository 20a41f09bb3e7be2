"""How published benchmark scripts started SGLang: InferenceX's for B200."""

from search_spaces.engines.launch import NODE_GPUS, Launch, Run


def launch(run: Run) -> Launch:
    """dsr1_fp8_b200.sh, dsr1_fp4_b200.sh: decode steps between two looks at the arrivals are 10, or 30 from 16 on."""
    small = run.weights == "fp8_block" and run.gpus < NODE_GPUS
    often = small or run.concurrency < 16  # noqa: PLR2004 the scripts' own bound
    if run.weights == "nvfp4":
        sequences, tokens = 256, 16384
    else:
        sequences, tokens = (32, 8192) if small else (128, 32768)
    return Launch(
        max_sequences=sequences,
        max_batched_tokens=tokens,
        kv_cache="fp8",
        receive_interval=1 if run.disaggregated else (10 if often else 30),
    )

"""vLLM: the command lines of `vllm serve`, after the argument parsers of 0.24.0 and 0.27.0.

What a ServingConfig does not choose stays the engine's default, except the share of memory that the memory model
assumes and CUDA graphs as large as the batch, as the step times assume.
"""

from typing import Any

from search_spaces.engines.worker import NGRAM_SIZE, Rendered, Role, Worker, as_json, many, options

GRAPH_TOKENS = 512
"""Where vLLM's CUDA graphs end by default."""


def render(worker: Worker) -> Rendered:
    """`vllm serve`: data x tensor parallel ranks, experts whole on each rank or split over all of them.

    `--max-num-batched-tokens` and `--max-num-seqs` hold for each data-parallel rank; the latter counts the
    batches of all pipeline stages. MXFP4 experts take 16-bit activations unless told otherwise (fused_moe's
    oracle/mxfp4.py). `--max-model-len auto` is the longest request that the KV cache holds.
    """
    activation = {"moe": {"activation": "mxfp8"}} if worker.weights == "mxfp4_mxfp8" else None
    large_graphs = worker.role != "prefill" and worker.graph_tokens > GRAPH_TOKENS
    argv = options(
        {
            "--host": worker.placement.host,
            "--port": worker.port,
            "--tensor-parallel-size": worker.layout.tensor,
            "--pipeline-parallel-size": many(worker.layout.pipeline),
            "--data-parallel-size": many(worker.layout.attention_dp),
            "--enable-expert-parallel": worker.layout.expert > 1,
            "--max-num-seqs": worker.batching.max_sequences * worker.layout.pipeline,
            "--max-num-batched-tokens": worker.batching.max_batched_tokens,
            "--max-model-len": "auto",
            "--max-cudagraph-capture-size": worker.graph_tokens if large_graphs else None,
            "--gpu-memory-utilization": worker.facts.memory_fraction,
            "--quantization": worker.quantization,
            "--quantization-config": as_json(activation),
            "--kv-cache-dtype": worker.facts.kv_cache[worker.config.precision.kv_cache],
            "--speculative-config": as_json(_speculation(worker)),
            "--kv-transfer-config": as_json(_transfer(worker)),
            "--trust-remote-code": worker.trusts_remote_code,
        }
    )
    channel = worker.placement.side_channels.get(worker.role)
    env = {"VLLM_NIXL_SIDE_CHANNEL_PORT": str(channel)} if channel else {}
    return Rendered(argv=("vllm", "serve", worker.checkpoint, *argv), env=env)


def _speculation(worker: Worker) -> dict[str, Any] | None:
    """`--speculative-config`; n-grams of 1 to NGRAM_SIZE tokens, as TensorRT-LLM matches them."""
    if not worker.draft_length:
        return None
    method = worker.config.speculation.method
    config: dict[str, Any] = {"method": method, "num_speculative_tokens": worker.draft_length}
    if method == "eagle3":
        config["model"] = worker.draft
    if method == "ngram":
        config |= {"prompt_lookup_min": 1, "prompt_lookup_max": NGRAM_SIZE}
    return config


def _transfer(worker: Worker) -> dict[str, Any] | None:
    kv_roles: dict[Role, str] = {"prefill": "kv_producer", "decode": "kv_consumer"}
    if worker.role == "serve":
        return None
    return {"kv_connector": "NixlConnector", "kv_role": kv_roles[worker.role]}


def notes(_: Worker) -> list[str]:
    """What a command line cannot say."""
    return []

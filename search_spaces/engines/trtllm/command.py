"""TensorRT-LLM: the command lines and YAML of `trtllm-serve`, after the documentation of 1.3.0rc20 and rc23.

What a ServingConfig does not choose stays the engine's default, except the share of memory that the memory model
assumes and CUDA graphs as large as the batch, as the step times assume.
"""

from typing import Any

from search_spaces.config import Weights
from search_spaces.engines.worker import NGRAM_SIZE, Rendered, Worker, as_yaml, many, options

# How MXFP4 experts take 16-bit and how they take MXFP8 activations.
ACTIVATIONS: dict[Weights, dict[str, str]] = {
    "mxfp4": {"OVERRIDE_QUANT_ALGO": "W4A16_MXFP4"},
    "mxfp4_mxfp8": {"OVERRIDE_QUANT_ALGO": "W4A8_MXFP4_MXFP8"},
}


def render(worker: Worker) -> Rendered:
    """`trtllm-serve`: the parallel sizes and limits as options, the rest as YAML.

    `--tp_size` is the whole pipeline stage, with or without attention DP, and every expert is split tp_size /
    ep_size ways. `max_batch_size` and `max_num_tokens` hold for each attention-DP rank and each micro-batch
    of a pipeline (PyTorchModelEngine.get_max_num_sequences multiplies by the stages).
    """
    name = f"trtllm-{worker.role}.yaml"
    argv = options(
        {
            "--host": worker.placement.host,
            "--port": worker.port,
            "--tp_size": worker.ranks,
            "--pp_size": many(worker.layout.pipeline),
            "--ep_size": worker.layout.expert if worker.model.is_moe else None,
            "--max_batch_size": worker.batching.max_sequences,
            "--max_num_tokens": worker.batching.max_batched_tokens,
            "--trust_remote_code": worker.trusts_remote_code,
            "--config": name,
        }
    )
    return Rendered(
        argv=("trtllm-serve", worker.checkpoint, *argv),
        files={name: as_yaml(_settings(worker))},
        env=ACTIVATIONS.get(worker.weights, {}),
    )


def _settings(worker: Worker) -> dict[str, Any]:
    """LlmArgs beyond the command line; as the cache's dtype, `auto` is what the checkpoint says."""
    settings: dict[str, Any] = {
        "enable_attention_dp": worker.layout.attention_dp > 1,
        "enable_chunked_prefill": True,
        "kv_cache_config": {
            "dtype": worker.facts.kv_cache[worker.config.precision.kv_cache],
            "free_gpu_memory_fraction": worker.facts.memory_fraction,
        },
    }
    if worker.batching.receive_interval > 1:
        settings |= _waiting(worker)
    if worker.role != "prefill":
        settings["cuda_graph_config"] = {
            "enable_padding": True,
            "max_batch_size": worker.batching.max_sequences,
        }
    if worker.draft_length:
        settings["speculative_config"] = _speculation(worker)
    if worker.role == "prefill" or worker.config.speculation.method == "ngram":
        settings["disable_overlap_scheduler"] = True
    if worker.role != "serve":
        settings["cache_transceiver_config"] = {"backend": "NIXL"}
    return settings


def _waiting(worker: Worker) -> dict[str, Any]:
    """Decode steps for which prompts gather: until all ranks have one, or enough for a pass."""
    steps = worker.batching.receive_interval
    if worker.layout.attention_dp > 1:
        return {"attention_dp_config": {"enable_balance": True, "timeout_iters": steps, "batching_wait_iters": 0}}
    return {"batch_wait_timeout_iters": steps, "batch_wait_max_tokens_ratio": 1.0}


def _speculation(worker: Worker) -> dict[str, Any]:
    """`speculative_config`. MTP names its length twice: older releases read the one, newer ones the other."""
    length = worker.draft_length
    match worker.config.speculation.method:
        case "mtp":
            return {"decoding_type": "MTP", "max_draft_len": length, "num_nextn_predict_layers": length}
        case "eagle3":
            return {"decoding_type": "Eagle3", "max_draft_len": length, "speculative_model": worker.draft}
        case _:
            return {"decoding_type": "NGram", "max_draft_len": length, "max_matching_ngram_size": NGRAM_SIZE}


def notes(worker: Worker) -> list[str]:
    """What a command line cannot say."""
    sentences = []
    if worker.config.precision.kv_cache == "bf16" and not worker.loads_own:
        sentences.append("The KV cache is FP8 in spite of bf16 where the quantized checkpoint says so.")
    if worker.layout.pipeline > 1:
        sentences.append("TensorRT-LLM has not tested chunked prefill with pipeline parallelism.")
    return sentences

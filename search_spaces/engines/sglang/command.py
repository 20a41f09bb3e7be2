"""SGLang: the command lines of `python -m sglang.launch_server`, after the argument parsers of 0.5.14 and 0.5.16.

What a ServingConfig does not choose stays the engine's default, except the share of memory that the memory model
assumes and CUDA graphs as large as the batch, as the step times assume.
"""

from search_spaces.engines.worker import Rendered, Worker, many, options


def render(worker: Worker) -> Rendered:
    """`python -m sglang.launch_server`: `--tp-size` is the whole pipeline stage, cut into `--dp-size` parts.

    `--max-running-requests` counts all attention-DP ranks and pipeline stages, `--chunked-prefill-size` all
    ranks (ServerArgs divides it by dp_size). The share of memory is stated because SGLang would derive it
    from that undivided size. MXFP4 experts take MXFP8 activations unless told otherwise.
    """
    layout, batching = worker.layout, worker.batching
    schedulers = layout.attention_dp * layout.pipeline
    argv = options(
        {
            "--model-path": worker.checkpoint,
            "--host": worker.placement.host,
            "--port": worker.port,
            "--tp-size": worker.ranks,
            "--pp-size": many(layout.pipeline),
            "--dp-size": many(layout.attention_dp),
            "--enable-dp-attention": layout.attention_dp > 1,
            "--ep-size": many(layout.expert),
            "--max-running-requests": batching.max_sequences * schedulers,
            "--chunked-prefill-size": batching.max_batched_tokens * layout.attention_dp,
            "--scheduler-recv-interval": many(batching.receive_interval),
            "--cuda-graph-max-bs-decode": None if worker.role == "prefill" else batching.max_sequences,
            "--mem-fraction-static": worker.facts.memory_fraction,
            "--quantization": worker.quantization,
            "--kv-cache-dtype": worker.facts.kv_cache[worker.config.precision.kv_cache],
            "--flashinfer-mxfp4-moe-precision": "bf16" if worker.weights == "mxfp4" else None,
            "--moe-runner-backend": "flashinfer_mxfp4" if worker.weights == "mxfp4_mxfp8" else None,
            **_speculation(worker),
            "--disaggregation-mode": None if worker.role == "serve" else worker.role,
            "--disaggregation-transfer-backend": None if worker.role == "serve" else "nixl",
            "--disaggregation-bootstrap-port": worker.placement.bootstrap_port if worker.role == "prefill" else None,
            "--trust-remote-code": worker.trusts_remote_code,
        }
    )
    return Rendered(argv=("python", "-m", "sglang.launch_server", *argv))


def _speculation(worker: Worker) -> dict[str, object]:
    """A chain of drafts: one branch, and one token more to verify than are drafted."""
    length = worker.draft_length
    if not length:
        return {}
    if worker.config.speculation.method == "ngram":
        return {
            "--speculative-algorithm": "NGRAM",
            "--speculative-num-draft-tokens": length + 1,
            "--speculative-ngram-max-bfs-breadth": 1,
        }
    eagle3 = worker.config.speculation.method == "eagle3"
    return {
        "--speculative-algorithm": "EAGLE3" if eagle3 else "EAGLE",
        "--speculative-draft-model-path": worker.draft if eagle3 else None,
        "--speculative-num-steps": length,
        "--speculative-eagle-topk": 1,
        "--speculative-num-draft-tokens": length + 1,
    }


def notes(_: Worker) -> list[str]:
    """What a command line cannot say."""
    return []

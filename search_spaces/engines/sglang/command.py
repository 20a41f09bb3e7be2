"""SGLang: the command lines of `python -m sglang.launch_server`, after the argument parsers of 0.5.14 and 0.5.16.

What a ServingConfig does not choose stays the engine's default, except the share of memory that the memory model
assumes and CUDA graphs as large as the batch, as the step times assume.
"""

from collections.abc import Sequence

from search_spaces.config import KvCache
from search_spaces.engines.engine import engines
from search_spaces.engines.worker import Address, Place, Rendered, Worker, many, options

KV_CACHES: dict[KvCache, str] = {"bf16": "bf16", "fp8": "fp8_e4m3"}

DIST_INIT_PORT = 20000

ROUTER = "`python -m sglang_router.launch_router --pd-disaggregation --prefill URL {bootstrap_port} --decode URL`"
ACROSS_NODES = "add --nnodes, --node-rank and --dist-init-addr"


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
            "--host": worker.place.host,
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
            "--mem-fraction-static": engines()["sglang"].memory_fraction,
            "--quantization": worker.quantization,
            "--kv-cache-dtype": KV_CACHES[worker.config.precision.kv_cache],
            "--flashinfer-mxfp4-moe-precision": "bf16" if worker.weights == "mxfp4" else None,
            "--moe-runner-backend": "flashinfer_mxfp4" if worker.weights == "mxfp4_mxfp8" else None,
            **_speculation(worker),
            "--disaggregation-mode": None if worker.role == "serve" else worker.role,
            "--disaggregation-transfer-backend": None if worker.role == "serve" else "nixl",
            "--disaggregation-bootstrap-port": worker.place.bootstrap_port if worker.role == "prefill" else None,
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


def router(prefill: Sequence[Address], decode: Sequence[Address], place: Place) -> Rendered:
    """`sglang_router.launch_router` (sglang-router 0.3.2), told each prefill worker's bootstrap port."""
    argv = options({"--host": place.host, "--port": place.ports["router"], "--policy": "round_robin"})
    workers = [part for address in prefill for part in ("--prefill", address.url, str(address.bootstrap_port))]
    workers += [part for address in decode for part in ("--decode", address.url)]
    return Rendered(argv=("python", "-m", "sglang_router.launch_router", *argv, "--pd-disaggregation", *workers))


def across_nodes(argv: Sequence[str], *, nodes: int, rank: str, leader: str) -> tuple[str, ...]:
    """One node's part of a worker that spans several; only the first answers requests."""
    return (*argv, *options({"--nnodes": nodes, "--node-rank": rank, "--dist-init-addr": f"{leader}:{DIST_INIT_PORT}"}))

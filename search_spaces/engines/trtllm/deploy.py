"""TensorRT-LLM where several workers share the load or one spans several machines."""

from collections.abc import Sequence
from typing import Any

from search_spaces.engines.worker import Address, Placement, Rendered, Worker, as_yaml, many, options

ROUTER_FILE = "trtllm-router.yaml"


def router(prefill: Sequence[Address], decode: Sequence[Address], placement: Placement) -> Rendered:
    """`trtllm-serve disaggregated`, which hands a prompt to one prefill and one decode worker, in turn.

    Its file names workers as host:port (disagg_utils.py, extract_ctx_gen_cfgs).
    """
    settings = {
        "hostname": placement.host,
        "port": placement.ports["router"],
        "context_servers": _servers(prefill),
        "generation_servers": _servers(decode),
    }
    argv = ("trtllm-serve", "disaggregated", "-c", ROUTER_FILE)
    return Rendered(argv=argv, files={ROUTER_FILE: as_yaml(settings)})


def _servers(addresses: Sequence[Address]) -> dict[str, Any]:
    return {"num_instances": len(addresses), "urls": [f"{address.host}:{address.port}" for address in addresses]}


def across_nodes(argv: Sequence[str], *, hosts: Sequence[str], gpus: Sequence[int]) -> tuple[str, ...]:
    """The whole of a worker that spans several nodes, as its first node starts it: one MPI rank for each GPU."""
    slots = ",".join(f"{host}:{len(gpus)}" for host in hosts)
    visible = f"CUDA_VISIBLE_DEVICES={','.join(map(str, gpus))}"
    ranks = str(len(hosts) * len(gpus))
    return ("mpirun", "-n", ranks, "-H", slots, "-x", visible, "trtllm-llmapi-launch", *argv)


def under_dynamo(worker: Worker, rendered: Rendered) -> Rendered:
    """`dynamo.trtllm` takes sizes as options of its own and the rest as `--extra-engine-args`."""
    ((name, settings),) = rendered.files.items()
    if worker.trusts_remote_code:
        settings += as_yaml({"trust_remote_code": True})
    argv = options(
        {
            "--model": worker.checkpoint,
            "--served-model-name": worker.checkpoint,
            "--tensor-parallel-size": worker.ranks,
            "--pipeline-parallel-size": many(worker.layout.pipeline),
            "--expert-parallel-size": worker.layout.expert if worker.model.is_moe else None,
            "--enable-attention-dp": worker.layout.attention_dp > 1,
            "--max-batch-size": worker.batching.max_sequences,
            "--max-num-tokens": worker.batching.max_batched_tokens,
            "--extra-engine-args": name,
            "--disaggregation-mode": None if worker.role == "serve" else worker.role,
        }
    )
    return Rendered(argv=argv, files={name: settings}, env=rendered.env)

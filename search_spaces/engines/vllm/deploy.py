"""vLLM where several workers share the load or one spans several machines."""

from collections.abc import Sequence
from dataclasses import replace

from search_spaces.engines.worker import OWN_PORT, Address, Placement, Rendered, Worker, options, without_options


def router(prefill: Sequence[Address], decode: Sequence[Address], placement: Placement) -> Rendered:
    """`vllm-router` (vllm-router 0.1.17, router_args.py), which hands kv_transfer_params from prefill to decode."""
    addresses = [("--prefill", address.url) for address in prefill] + [("--decode", address.url) for address in decode]
    argv = options({"--host": placement.host, "--port": placement.ports["router"], "--policy": "round_robin"})
    workers = [part for address in addresses for part in address]
    return Rendered(argv=("vllm-router", *argv, "--vllm-pd-disaggregation", *workers))


def across_nodes(argv: Sequence[str], *, nodes: int, rank: str, leader: str) -> tuple[str, ...]:
    """One node's part of a worker that spans several; only the first answers requests.

    arg_utils.py works out the data-parallel ranks of a node from `--nnodes` and `--node-rank`.
    """
    data_parallel = "--data-parallel-size" in argv
    spread = {
        "--nnodes": nodes,
        "--node-rank": rank,
        "--master-addr": leader,
        "--data-parallel-address": leader if data_parallel else None,
        "--headless": rank != "0",
    }
    return (*argv, *options(spread))


def under_dynamo(worker: Worker, rendered: Rendered) -> Rendered:
    """`dynamo.vllm` takes vLLM's options, and the model and the role as options of their own."""
    role = None if worker.role == "serve" else worker.role
    own = without_options(rendered.argv[3:], OWN_PORT)
    argv = ("--model", worker.checkpoint, *own, *options({"--disaggregation-mode": role}))
    return replace(rendered, argv=argv)

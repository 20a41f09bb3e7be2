"""vLLM where several workers share the load or one spans several machines."""

from collections.abc import Sequence

from search_spaces.engines.worker import Address, Placement, Rendered, options


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

"""SGLang where several workers share the load or one spans several machines."""

from collections.abc import Sequence
from dataclasses import replace

from search_spaces.engines.worker import OWN_PORT, Address, Placement, Rendered, Worker, options, without_options

DIST_INIT_PORT = 20000


def router(prefill: Sequence[Address], decode: Sequence[Address], placement: Placement) -> Rendered:
    """`sglang_router.launch_router` (sglang-router 0.3.2), with each prefill worker's bootstrap port."""
    argv = options({"--host": placement.host, "--port": placement.ports["router"], "--policy": "round_robin"})
    workers = [part for address in prefill for part in ("--prefill", address.url, str(address.bootstrap_port))]
    workers += [part for address in decode for part in ("--decode", address.url)]
    return Rendered(argv=("python", "-m", "sglang_router.launch_router", *argv, "--pd-disaggregation", *workers))


def across_nodes(argv: Sequence[str], *, nodes: int, rank: str, leader: str) -> tuple[str, ...]:
    """One node's part of a worker that spans several; only the first answers requests."""
    return (*argv, *options({"--nnodes": nodes, "--node-rank": rank, "--dist-init-addr": f"{leader}:{DIST_INIT_PORT}"}))


def under_dynamo(_: Worker, rendered: Rendered) -> Rendered:
    """`dynamo.sglang` takes SGLang's options, which say the role, too."""
    return replace(rendered, argv=without_options(rendered.argv[3:], OWN_PORT))

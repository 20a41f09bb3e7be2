"""What the facts of a system must be: ranges, and laws between them."""

from collections.abc import Iterator

from search_spaces.hardware.system import System
from search_spaces.ranges import POSITIVE, Range, outside, unless

OF_A_GPU = {
    "memory_bytes": POSITIVE,
    "memory_bandwidth": POSITIVE,
    "bf16_flops": POSITIVE,
    "fp8_flops": POSITIVE,
    "fp4_flops": POSITIVE,
    "power_watts": POSITIVE,
}
OF_A_SYSTEM = {
    "gpus_per_node": POSITIVE,
    "nvlink_gpus": POSITIVE,
    "max_gpus": POSITIVE,
    "nvlink_bandwidth": POSITIVE,
    "network_bandwidth": POSITIVE,
    "network_latency_s": Range(0, 1),
}


def broken_laws(system: System) -> Iterator[str]:
    """What cannot be, by key: the law and what was found."""
    for law in outside(system.gpu, OF_A_GPU):
        yield f"gpu.{law}"
    yield from outside(system, OF_A_SYSTEM)
    for key in ("gpus_per_node", "nvlink_gpus"):
        found = getattr(system, key)
        yield from unless(found <= system.max_gpus, key, f"`{key} <= {system.max_gpus}` (max_gpus) must hold", found)
    yield from unless(bool(system.silicon_name), "silicon_name", "must not be empty", "nothing")
    yield from unless(bool(system.gpu.name), "gpu.name", "must not be empty", "nothing")

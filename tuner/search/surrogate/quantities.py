"""Quantities: what is learned, and how wrong predictions of each are before any is checked."""

import math
from dataclasses import replace

from tuner.search.surrogate.features import NUMBERS
from tuner.search.surrogate.kernel import Kernel

COST = "cost"
"""The quantity that is minimised; the other quantities of a surrogate are SLOs, by their keys."""

TTFT = Kernel(
    overall=0.18,
    engine=0.33,
    precision=0.09,
    mode=0.10,
    release=0.19,
    unpriced=0.2,
    slope=0.057,
    local=0.24,
    noise=0.114,
)
TPOT = Kernel(
    overall=0.10,
    engine=0.12,
    precision=0.06,
    mode=0.03,
    release=0.084,
    unpriced=0.2,
    slope=0.023,
    local=0.063,
    noise=0.037,
)
"""How wrong predictions of TTFT and TPOT are before any is checked, in logarithms: chosen on recorded rows
(docs/search.md). `unpriced` is an assumption: further engine arguments change a latency or cost by about a fifth."""

DOLLARS = replace(TPOT, pool=0.1)
"""How wrong predictions of the cost are, at the load that meets the SLA: as those of TPOT, and by the assumption that
prefill workers are a tenth quicker or slower than predicted."""

SIMULATOR_BIAS = {"ttft": 0.31, "tpot": 0.0}
"""Mean log(measured / simulated) of the recorded Hopper rows (`python benchmarks/regret.py --hopper`)."""

UNINFORMED = Kernel(
    overall=3.0,
    engine=0.3,
    precision=0.0,
    mode=0.0,
    unpriced=0.3,
    local=0.5,
    noise=0.03,
    lengths=tuple(math.inf if name in ("load", "layout.replicas", "prefill.replicas") else 2.0 for name in NUMBERS),
)
"""Of the logarithm itself, where nothing is predicted: the load is whatever a configuration can carry, and as many
replicas as fill the GPUs."""


def kernel_of(quantity: str, *, informed: bool = True) -> Kernel:
    """How wrong predictions of a quantity are, before any is checked."""
    if not informed:
        return UNINFORMED
    if quantity == COST:
        return DOLLARS
    return TTFT if quantity.startswith(("ttft", "e2e")) else TPOT

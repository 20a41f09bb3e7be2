"""Group: the schedulers that stand for a deployment in a simulation, and their share of its load."""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

from runners.workload.workload import Arrivals, ClosedLoop
from search_spaces.config import ServingConfig

MOST_SCHEDULERS = 16
"""Decode schedulers that share their prefill schedulers in a simulation; a finer ratio is approximated.

Where more of them share a single prefill scheduler, all are simulated: rounding would give them more prefill.
"""

MOST_OFF = Fraction(4, 100)
"""By how much an approximated ratio may give decoders more or less prefill; else more of them are simulated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Prefill schedulers (none where aggregated) and decode schedulers, as few as have the deployment's own ratio.

    `copies` of the group have the deployment's decode schedulers: where the ratio is approximated, that is a fraction,
    and no rounding of it may reach the load. Each gets `concurrency` requests in flight in a closed loop (0 in an open
    one), or every copies-th arrival. Requests in flight that do not go round leave copies idle.
    """

    prefill: int
    decode: int
    copies: Fraction
    concurrency: int

    @classmethod
    def of(cls, config: ServingConfig, arrivals: Arrivals) -> "Group":
        prefill, decode = _ratio(config)
        copies = Fraction(config.layout.schedulers, decode)
        if not isinstance(arrivals, ClosedLoop):
            return cls(prefill=prefill, decode=decode, copies=copies, concurrency=0)
        each = math.ceil(arrivals.concurrency / copies)
        return cls(prefill=prefill, decode=decode, copies=Fraction(arrivals.concurrency, each), concurrency=each)

    def scaled(self, count: int) -> int:
        """Of the whole deployment, what was counted in this group."""
        return round(self.copies * count)


def _ratio(config: ServingConfig) -> tuple[int, int]:
    """Prefill to decode schedulers; (0, 1) when aggregated."""
    pool = config.disaggregation
    if pool is None:
        return 0, 1
    exact = Fraction(pool.prefill_layout.schedulers, config.layout.schedulers)
    fewest = max(MOST_SCHEDULERS, round(1 / exact))
    nearest = (exact.limit_denominator(most) for most in itertools.count(fewest))
    ratio = next(ratio for ratio in nearest if abs(ratio / exact - 1) <= MOST_OFF)
    return ratio.numerator, ratio.denominator

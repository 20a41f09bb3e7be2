"""Acquisition: how much is expected of each option as the next trial."""

from functools import cache

import numpy as np

from tuner.search.surrogate.features import Array

FIRST_CAUTION, CAUTION = 1.0, 0.45
"""The power of P(SLA met) by which an expected gain is weighed, beyond the one that it contains: until something was
measured to meet the SLA, and then."""

THRIFT = 0.1
"""The power of a trial's GPU time by which its worth is divided."""

DRAWS = 256
"""Joint draws of what is promised, by which the gain is expected where the cost follows from them."""


@cache
def quantiles(dimensions: int, count: int) -> Array:
    """Points of a standard normal (dimensions, count), evenly spread: Roberts' R sequence."""
    from scipy.special import ndtri

    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    found: Array = ndtri((0.5 + np.outer(steps, np.arange(1, count + 1))) % 1)
    return found


def expected_gain(mean: Array, sd: Array, best: float | None) -> Array:
    """E[max(value - best, 0)] of values whose logarithms are normal; without a best, E[value].

    The closed form of Black and Scholes, in units of e^best (or of the largest mean, so that nothing overflows).
    """
    from scipy.special import ndtr

    if best is None:
        found: Array = np.exp(mean - mean.max() + sd**2 / 2)
        return found
    above = (mean - best) / sd
    found = np.exp(np.clip(mean - best + sd**2 / 2, None, 50)) * ndtr(above + sd) - ndtr(above)
    return np.maximum(found, 0.0)

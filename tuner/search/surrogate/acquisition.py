"""Acquisition: how much is to be expected of each option as the next trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from tuner.search.surrogate.features import Array

FIRST_CAUTION, CAUTION = 1.0, 0.45
"""The power of P(SLA met) by which an expected gain is weighed, beyond the one that it contains: until something was
measured to meet the SLA, and then. Chosen on recorded rows (docs/search.md)."""

DRAWS = 256
"""Joint draws of latencies, by which the gain is expected where the cost follows from them."""

LEAST_GAIN = 1e-9
"""What P(SLA met) adds to a gain in draws: where none of them gains, the likelier to meet the SLA comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the posterior says of each option: the log of its cost (mean and standard deviation), and P(SLA met)."""

    cost: Array
    sd: Array
    met: Array


def acquisition(outlook: Outlook, best: float | None) -> Array:
    """Expected improvement under constraints, where cost and latencies are independent.

        E[max(e^(best - cost) - 1, 0)] x P(SLA met)^(1 + caution)

    which is the gain in tokens for each dollar over the best, as expected improvement (Jones, Schonlau and Welch, 1998)
    times the probability of feasibility (Gardner et al., Bayesian Optimization with Inequality Constraints, 2014).
    `best` is the log of the lowest cost that met the SLA; without one, it is E[e^-cost] that is weighed.
    """
    gain = expected_gain(-outlook.cost, outlook.sd, None if best is None else -best)
    return _cautious(gain * outlook.met, outlook.met, best)


def joint_acquisition(costs: Array, ratios: Mapping[str, Array], met: Array, best: float | None) -> Array:
    """The same where the cost follows from the latencies: the mean over joint draws (options, draws).

    `ratios` are logarithms of latency / limit by SLO.
    """
    are_met = np.all([drawn <= 0 for drawn in ratios.values()], axis=0)
    values = np.exp((costs.min() if best is None else best) - costs)
    gain = ((values if best is None else np.maximum(values - 1, 0)) * are_met).mean(axis=1)
    return _cautious(gain + LEAST_GAIN * met, met, best)


def _cautious(gain: Array, met: Array, best: float | None) -> Array:
    found: Array = gain * met ** (FIRST_CAUTION if best is None else CAUTION)
    return found


@cache
def quantiles(dimensions: int, count: int) -> Array:
    """Points of a standard normal (dimensions, count), evenly spread: Roberts' R sequence (2018)."""
    from scipy.special import ndtri

    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    found: Array = ndtri((0.5 + np.outer(steps, np.arange(1, count + 1))) % 1)
    return found


def expected_gain(mean: Array, sd: Array, best: float | None) -> Array:
    """E[max(value - best, 0)] of values whose logarithms are normal; without a best, E[value].

    The closed form of Black and Scholes (1973), in units of e^best (or of the largest mean, so that nothing overflows).
    """
    from scipy.special import ndtr

    if best is None:
        found: Array = np.exp(mean - mean.max() + sd**2 / 2)
        return found
    above = (mean - best) / sd
    found = np.exp(np.clip(mean - best + sd**2 / 2, None, 50)) * ndtr(above + sd) - ndtr(above)
    return np.maximum(found, 0.0)

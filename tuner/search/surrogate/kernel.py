"""Kernels: how the log residuals of two configurations vary together."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.search.surrogate.features import NAMES, NUMBERS, Array, Places

USUAL_LOAD = 4.0
"""Logarithm to base 2 of the requests in flight for each GPU at which errors that grow with load are as they are."""

SCALES = ("engine", "precision", "mode", "release", "slope", "local", "noise")
"""What `Kernel.fitted` learns, beside lengths and what a name that differs leaves."""

LOOSENESS = 0.8
FIT_STEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How the log residuals of two places vary together: standard deviations, and lengths in units of NUMBERS.

    `overall` is shared by all places; `engine`, `precision`, `mode` and `release` by those of the same engine, then of
    its same number formats, mode or release; `slope` is how much more an engine is off, in one mode, at each doubling
    of the load; `local` fades with the distance (Matern 3/2, smooth enough for kernels that switch). An infinite
    length takes no notice of a number. A name that differs, the release excepted, leaves `unlike` of the local
    correlation. `noise` is of one measurement: that of repeats, and what no input explains.
    """

    overall: float
    engine: float
    precision: float
    mode: float
    local: float
    noise: float
    release: float = 0.0
    slope: float = 0.0
    lengths: tuple[float, ...] = (1.7, 1.4, math.inf, math.inf, 1.4, 1.4, 1.4, 1.4, 2.8, 2.8)
    unlike: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5, 0.5)

    def variances(self, places: Places) -> Array:
        """Of each place before anything is measured."""
        parts = (self.overall, self.engine, self.precision, self.mode, self.release, self.local)
        found: Array = sum(part**2 for part in parts) + (self.slope * (places.numbers[:, 0] - USUAL_LOAD)) ** 2
        return found

    def between(self, some: Places, others: Places) -> Array:
        """Covariances, (some, others)."""
        same = some.names[:, None, :] == others.names[None, :, :]
        engine, weights, kv_cache, mode, _, release = (same[:, :, index] for index in range(len(NAMES)))
        loads = np.outer(some.numbers[:, 0] - USUAL_LOAD, others.numbers[:, 0] - USUAL_LOAD)
        shared = (
            (weights & kv_cache) * self.precision**2
            + mode * (self.mode**2 + self.slope**2 * loads)
            + release * self.release**2
        )
        found: Array = self.overall**2 + engine * (self.engine**2 + shared) + self._local(some, others, same)
        return found

    def _local(self, some: Places, others: Places, same: NDArray[np.bool_]) -> Array:
        squares = np.zeros((len(some), len(others)))
        for index, length in enumerate(self.lengths):
            if math.isfinite(length):
                squares += (np.subtract.outer(some.numbers[:, index], others.numbers[:, index]) / length) ** 2
        distance = np.sqrt(3 * squares)
        differ = ~same[:, :, : len(self.unlike)] @ np.log(self.unlike)
        found: Array = self.local**2 * (1 + distance) * np.exp(differ - distance)
        return found

    def fitted(self, places: Places, residuals: Array, *, start: "Kernel | None" = None) -> "Kernel":
        """The kernel that makes the residuals most likely, held near this one (maximum a posteriori).

        Standard deviations and lengths are log-normal around this kernel's, by a factor of two or so; those that are
        0 or infinite stay so. `start` is where to begin to look.
        """
        from scipy.optimize import minimize

        centre = self.logs()

        def misfit(logs: Array) -> float:
            kernel = self._from(logs)
            matrix = kernel.between(places, places) + kernel.noise**2 * np.eye(len(places))
            try:
                factor = np.linalg.cholesky(matrix)
            except np.linalg.LinAlgError:
                return 1e9
            white = np.linalg.solve(factor, residuals)
            likelihood = white @ white / 2 + np.log(np.diag(factor)).sum()
            return float(likelihood + ((logs - centre) ** 2).sum() / (2 * LOOSENESS**2))

        begin = centre if start is None else start.logs()
        bounds = [(log - 3, log + 3) for log in centre]
        return self._from(minimize(misfit, begin, method="L-BFGS-B", bounds=bounds, options={"maxiter": FIT_STEPS}).x)

    @property
    def _learned(self) -> tuple[list[str], list[int]]:
        """Scales and lengths that take part."""
        scales = [name for name in SCALES if getattr(self, name) > 0]
        return scales, [index for index, length in enumerate(self.lengths) if math.isfinite(length)]

    def logs(self) -> Array:
        """Logarithms of what `fitted` learns: scales, lengths, and odds of `unlike`."""
        scales, lengths = self._learned
        odds = [value / (1 - value) for value in self.unlike]
        values = [getattr(self, name) for name in scales] + [self.lengths[index] for index in lengths] + odds
        logs: Array = np.log(np.array(values))
        return logs

    def _from(self, logs: Array) -> "Kernel":
        scales, lengths = self._learned
        values = np.exp(logs).tolist()
        found = dict(zip(scales, values, strict=False))
        at = dict(zip(lengths, values[len(scales) :], strict=False))
        unlike = tuple(odds / (1 + odds) for odds in values[len(scales) + len(lengths) :])
        return replace(
            self,
            lengths=tuple(at.get(index, length) for index, length in enumerate(self.lengths)),
            unlike=unlike,
            **found,
        )


TTFT = Kernel(overall=0.18, engine=0.33, precision=0.09, mode=0.10, release=0.19, slope=0.057, local=0.24, noise=0.114)
TPOT = Kernel(
    overall=0.10, engine=0.12, precision=0.06, mode=0.03, release=0.084, slope=0.023, local=0.063, noise=0.037
)
SIMULATOR_BIAS = {"ttft": 0.31, "tpot": 0.0}
"""Mean log(measured / simulated) of the recorded Hopper rows (`python benchmarks/regret.py --hopper`)."""

UNINFORMED = Kernel(
    overall=3.0,
    engine=0.3,
    precision=0.0,
    mode=0.0,
    local=0.5,
    noise=0.03,
    lengths=(math.inf, *(2.0 for _ in NUMBERS[1:])),
)
"""Of the logarithm itself, where nothing is predicted: the load is whatever a configuration can carry."""


def kernel_of(quantity: str, *, informed: bool = True) -> Kernel:
    """How wrong predictions of a quantity are, before any is checked."""
    if not informed:
        return UNINFORMED
    return TTFT if quantity.startswith(("ttft", "e2e")) else TPOT

"""Fitting: the kernel that explains the observations best."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tuner.search.surrogate.features import Array, FeatureTable
from tuner.search.surrogate.kernel import LOCAL_NAMES, UNPRICED, Kernel, Pairs

SCALES = ("engine", "precision", "mode", "release", "pool", "unpriced", "slope", "local", "noise")
"""Standard deviations that are learned, beside `lengths` and `unlike`."""

LOOSENESS = 0.8
"""Standard deviation of the logarithm of what is learned about where it begins: a factor of about two either way."""

FIT_STEPS = 12
"""Steps of L-BFGS at each fit: later ones change costs by less than the noise."""

FIT_REACH = 3.0
"""Most by which a logarithm may leave where it begins."""


def fitted(kernel: Kernel, table: FeatureTable, residuals: Array, *, start: Kernel | None = None) -> Kernel:
    """The kernel that makes residuals at the rows of a table most likely, held near this one (maximum a posteriori).

    Maximises log N(residuals | 0, covariance) - |logs - centre|^2 / (2 LOOSENESS^2): standard deviations, lengths
    and odds of `unlike` are log-normal around this kernel's. Those that are 0 or infinite, or that no two of the
    rows tell apart, stay. `start` is where to begin to look.
    """
    from scipy.optimize import minimize

    free = _Free.of(kernel, table)
    centre = free.logs(kernel)
    pairs = Pairs.of(table, table)

    def misfit(logs: Array) -> float:
        tried = free.kernel(kernel, logs)
        matrix = tried.of(pairs) + tried.noise**2 * np.eye(len(table))
        try:
            factor = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return 1e9
        white = np.linalg.solve(factor, residuals)
        likelihood = white @ white / 2 + np.log(np.diag(factor)).sum()
        return float(likelihood + ((logs - centre) ** 2).sum() / (2 * LOOSENESS**2))

    begin = centre if start is None else free.logs(start)
    bounds = [(log - FIT_REACH, log + FIT_REACH) for log in centre]
    found = minimize(misfit, begin, method="L-BFGS-B", bounds=bounds, options={"maxiter": FIT_STEPS})
    return free.kernel(kernel, found.x)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Free:
    """What of a kernel can be learned from a table: names of scales, indices of `lengths` and of `unlike`."""

    scales: tuple[str, ...]
    lengths: tuple[int, ...]
    unlike: tuple[int, ...]

    @classmethod
    def of(cls, kernel: Kernel, table: FeatureTable) -> "_Free":
        vary = table.varying(table)
        return cls(
            scales=tuple(name for name in SCALES if getattr(kernel, name) > 0 and _tells(name, table)),
            lengths=tuple(at for at in vary if math.isfinite(kernel.lengths[at])),
            unlike=tuple(at for at, name in enumerate(LOCAL_NAMES) if np.ptp(table.named(name)) > 0),
        )

    def logs(self, kernel: Kernel) -> Array:
        """Logarithms of scales and lengths, and of the odds of `unlike`."""
        values = [getattr(kernel, name) for name in self.scales] + [kernel.lengths[at] for at in self.lengths]
        values += [kernel.unlike[at] / (1 - kernel.unlike[at]) for at in self.unlike]
        logs: Array = np.log(np.array(values))
        return logs

    def kernel(self, kernel: Kernel, logs: Array) -> Kernel:
        """The kernel with what `logs` gave."""
        values = iter(np.exp(logs).tolist())
        scales = {name: next(values) for name in self.scales}
        lengths = {at: next(values) for at in self.lengths}
        odds = {at: next(values) for at in self.unlike}
        return replace(
            kernel,
            lengths=tuple(lengths.get(at, length) for at, length in enumerate(kernel.lengths)),
            unlike=tuple(odds[at] / (1 + odds[at]) if at in odds else left for at, left in enumerate(kernel.unlike)),
            **scales,
        )


def _tells(scale: str, table: FeatureTable) -> bool:
    """Whether a table has anything that a scale speaks of."""
    if scale == "pool":
        return bool(table.has_pool.any())
    return scale != "unpriced" or any(table.is_on(name).any() for name in UNPRICED)

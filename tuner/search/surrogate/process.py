"""Process: the posterior of a Gaussian process, learned from one observation after the other."""

import math

import numpy as np

from tuner.search.surrogate.features import Array, Places
from tuner.search.surrogate.kernel import Kernel


class Posterior:
    """The residual of one quantity at each place of a table, learned from one observation after the other.

    An observation costs time in proportion to the table and to the observations so far (a growing Cholesky factor).
    """

    def __init__(self, kernel: Kernel, table: Places) -> None:
        self.kernel = kernel
        self.table = table
        self.mean: Array = np.zeros(len(table))
        self.variance: Array = kernel.variances(table)
        self._seen: Places | None = None
        self._indices: list[int] = []
        self._residuals: list[float] = []
        self._factor: Array = np.zeros((0, 0))
        self._whitened: Array = np.zeros(0)
        self._reach: Array = np.zeros((0, len(table)))

    @property
    def sd(self) -> Array:
        """Standard deviation of the residual itself, without the noise of measuring it."""
        found: Array = np.sqrt(np.maximum(self.variance, 1e-12))
        return found

    def observe(self, index: int, residual: float, *, noise: float | None = None) -> None:
        """A log residual at a place of the table, with the standard deviation of its noise."""
        place = self.table[index : index + 1]
        noise = self.kernel.noise if noise is None else noise
        count = len(self._whitened)
        own = self._reach[:, index].copy()
        self._indices.append(index)
        self._residuals.append(residual)
        spread = math.sqrt(max(float(self.kernel.variances(place)[0] - own @ own), 0.0) + noise**2)
        factor = np.zeros((count + 1, count + 1))
        factor[:count, :count] = self._factor
        factor[count, :count], factor[count, count] = own, spread
        reach = (self.kernel.between(place, self.table)[0] - own @ self._reach) / spread
        white = (residual - own @ self._whitened) / spread
        self._factor = factor
        self._whitened = np.concatenate([self._whitened, [white]])
        self._reach = np.vstack([self._reach, reach])
        self._seen = place if self._seen is None else self._seen.with_more(place)
        self.mean = self.mean + white * reach
        self.variance = self.variance - reach**2

    def extend(self, more: Places) -> None:
        """Adds places to the end of the table."""
        reach: Array = np.zeros((len(self._whitened), len(more)))
        if self._seen is not None:
            from scipy.linalg import solve_triangular

            reach = solve_triangular(self._factor, self.kernel.between(self._seen, more), lower=True)
        self.table = self.table.with_more(more)
        self._reach = np.hstack([self._reach, reach])
        self.mean = np.append(self.mean, self._whitened @ reach)
        self.variance = np.append(self.variance, self.kernel.variances(more) - (reach**2).sum(axis=0))

    @property
    def seen(self) -> tuple[Places, Array]:
        """Where something was observed, and the residuals."""
        return self.table[np.array(self._indices, dtype=np.int64)], np.array(self._residuals)

    def under(self, kernel: Kernel) -> "Posterior":
        """What the same observations teach under another kernel."""
        from scipy.linalg import solve_triangular

        other = Posterior(kernel, self.table)
        places, residuals = self.seen
        other._seen, other._indices, other._residuals = places, [*self._indices], [*self._residuals]
        noise = kernel.noise**2 * np.eye(len(places))
        factor: Array = np.linalg.cholesky(kernel.between(places, places) + noise).astype(np.float64)
        other._factor = factor
        other._whitened = solve_triangular(other._factor, residuals, lower=True)
        other._reach = solve_triangular(other._factor, kernel.between(places, self.table), lower=True)
        other.mean = other._whitened @ other._reach
        other.variance = other.variance - (other._reach**2).sum(axis=0)
        return other

    @property
    def observations(self) -> int:
        return len(self._whitened)

    @property
    def surprise(self) -> float:
        """Mean square of the observations in units of what was expected: 1 where the kernel's scale is right."""
        return float(self._whitened @ self._whitened / len(self._whitened)) if len(self._whitened) else 1.0

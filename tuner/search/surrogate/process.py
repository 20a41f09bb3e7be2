"""Process: the posterior of a Gaussian process, learned from one observation after the other."""

import math

import numpy as np

from tuner.search.surrogate.features import Array, FeatureTable
from tuner.search.surrogate.kernel import Kernel

SPARE = 1.5
"""How much larger than needed arrays are made when they have to grow: rows and columns come one by one."""


class Posterior:
    """The residual of one quantity at each row of a table, given the observations so far.

    With K the covariances of what was observed (noise added), L its Cholesky factor and k those with a row (Rasmussen
    and Williams, Gaussian Processes for Machine Learning, 2006, equations 2.25 and 2.26, algorithm 2.1):

        mean = (L^-1 k)' (L^-1 residuals), variance = k(row, row) - |L^-1 k|^2

    L and L^-1 k grow by a row with each observation, which costs time in proportion to the table and to the
    observations so far.
    """

    def __init__(self, kernel: Kernel, table: FeatureTable) -> None:
        self.kernel = kernel
        self.table = table
        self.mean: Array = np.zeros(len(table))
        self.variance: Array = kernel.variances(table)
        self.observations = 0
        self._indices: list[int] = []
        self._residuals: list[float] = []
        self._whitened: list[float] = []
        self._factors: Array = np.zeros((0, 0))
        self._crosses: Array = np.zeros((0, len(table)))

    @property
    def _factor(self) -> Array:
        """L, (observations, observations)."""
        return self._factors[: self.observations, : self.observations]

    @property
    def _cross(self) -> Array:
        """L^-1 k, (observations, table)."""
        return self._crosses[: self.observations, : len(self.mean)]

    def observe(self, index: int, residual: float) -> None:
        """A log residual at a row of the table."""
        row = self.table[index : index + 1]
        count = self.observations
        own = self._cross[:, index].copy()
        left = float(self.kernel.variances(row)[0] - own @ own)
        spread = math.sqrt(max(left, 0.0) + self.kernel.noise**2)
        cross = (self.kernel.between(row, self.table)[0] - own @ self._cross) / spread
        white = (residual - float(own @ np.array(self._whitened))) / spread
        self._factors = _with_space(self._factors, count + 1, count + 1)
        self._factors[count, :count], self._factors[count, count] = own, spread
        self._crosses = _with_space(self._crosses, count + 1, len(cross))
        self._crosses[count, : len(cross)] = cross
        self._indices.append(index)
        self._residuals.append(residual)
        self._whitened.append(white)
        self.observations += 1
        self.mean = self.mean + white * cross
        self.variance = self.variance - cross**2

    def extend(self, table: FeatureTable) -> None:
        """Goes on with a table that has further rows at its end."""
        from scipy.linalg import solve_triangular

        known = len(self.mean)
        more = table[known:]
        cross: Array = np.zeros((0, len(more)))
        if self.observations:
            cross = solve_triangular(self._factor, self.kernel.between(self.seen[0], more), lower=True)
        self.table = table
        self._crosses = _with_space(self._crosses, self.observations, len(table))
        self._crosses[: self.observations, known : len(table)] = cross
        self.mean = np.append(self.mean, np.array(self._whitened) @ cross)
        self.variance = np.append(self.variance, self.kernel.variances(more) - (cross**2).sum(axis=0))

    @property
    def seen(self) -> tuple[FeatureTable, Array]:
        """Where something was observed, and the residuals."""
        return self.table[np.array(self._indices, dtype=np.int64)], np.array(self._residuals)

    def under(self, kernel: Kernel) -> "Posterior":
        """What the same observations teach under another kernel."""
        from scipy.linalg import solve_triangular

        other = Posterior(kernel, self.table)
        rows, residuals = self.seen
        noise = kernel.noise**2 * np.eye(len(rows))
        factor = np.linalg.cholesky(kernel.between(rows, rows) + noise).astype(np.float64)
        whitened = solve_triangular(factor, residuals, lower=True)
        cross = solve_triangular(factor, kernel.between(rows, self.table), lower=True)
        other.observations = self.observations
        other._indices, other._residuals, other._whitened = [*self._indices], residuals.tolist(), whitened.tolist()
        other._factors, other._crosses = factor, cross
        other.mean = whitened @ cross
        other.variance = other.variance - (cross**2).sum(axis=0)
        return other

    @property
    def surprise(self) -> float:
        """Mean square of the observations in units of what was expected: 1 where the kernel's scale is right."""
        whitened = np.array(self._whitened)
        return float(whitened @ whitened / len(whitened)) if len(whitened) else 1.0


def _with_space(array: Array, rows: int, columns: int) -> Array:
    """The array, or where it is too small a larger one that begins with it."""
    if rows <= array.shape[0] and columns <= array.shape[1]:
        return array
    wanted = [
        round(SPARE * size) if size > has else has for size, has in zip((rows, columns), array.shape, strict=True)
    ]
    larger = np.zeros(wanted)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger

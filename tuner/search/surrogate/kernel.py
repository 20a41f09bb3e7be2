"""Kernels: how the errors of two predictions vary together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.knobs import KNOBS, PREFILL
from tuner.search.surrogate.features import DERIVED, NAMES, NUMBERS, RELEASE, Array, FeatureTable

USUAL_LOAD = 4.0
"""Logarithm to base 2 of the requests in flight for each GPU at which errors that grow with load are as they are."""

FOLLOWING = ("layout.tensor", "layout.replicas", "prefill.replicas")
"""Numbers that follow from DERIVED and the others: they tell nothing more."""


def _length(name: str) -> float:
    return math.inf if name in FOLLOWING else KNOBS[name].length


LENGTHS: tuple[float, ...] = (1.7, 1.4, 1.4, *map(_length, NUMBERS[len(DERIVED) :]))
"""Of NUMBERS. Those of DERIVED were chosen together with TTFT and TPOT."""

POOL = tuple(name for name in NUMBERS if name.startswith(PREFILL) and name not in FOLLOWING)
"""Numbers of the prefill workers."""

UNPRICED = tuple(knob.name for knob in KNOBS.values() if not knob.priced_by)
"""Knobs that no predictor prices: all that they do is error."""

LOCAL_NAMES = tuple(name for name in NAMES if name != RELEASE)
"""Names of which another leaves a share of the local correlation: all but the release, which has a part of its own."""

UNLIKE: tuple[float, ...] = tuple(KNOBS[name].length for name in LOCAL_NAMES)
"""Of LOCAL_NAMES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How the logarithms of measured / predicted of two configurations vary together.

    Standard deviations of the parts that are summed: `overall` is shared by all; `engine`, `precision`, `mode` and
    `release` by those of the same engine, then of its same number formats, mode or release; `slope` is how much more an
    engine is off, in one mode, at each doubling of the load. `unpriced` is the effect of each knob that no predictor
    prices, shared by those with the same name (or, of numbers, the nearer the more), and none where a knob is off.
    `pool` fades with the distance between prefill workers, `local` with that of all numbers, as Matern 3/2 (Rasmussen
    and Williams, Gaussian Processes for Machine Learning, 2006, equation 4.17), smooth enough for kernels that switch:

        local^2 (1 + sqrt(3) d) exp(-sqrt(3) d) x product of `unlike` over the names that differ
        d^2 = sum of ((x - x') / length)^2 over NUMBERS

    `lengths` are in units of NUMBERS; an infinite one takes no notice of a number. `noise` is the standard deviation of
    one measurement: that of repeats, and what no feature explains.
    """

    overall: float
    engine: float
    precision: float
    mode: float
    local: float
    noise: float
    release: float = 0.0
    pool: float = 0.0
    unpriced: float = 0.0
    slope: float = 0.0
    lengths: tuple[float, ...] = LENGTHS
    unlike: tuple[float, ...] = UNLIKE

    def variances(self, table: FeatureTable) -> Array:
        """Of each row before anything is measured."""
        parts = (self.overall, self.engine, self.precision, self.mode, self.release, self.local)
        switched_on = sum(table.is_on(name) for name in UNPRICED)
        found: Array = (
            sum(part**2 for part in parts)
            + (self.slope * (table.numbers[:, 0] - USUAL_LOAD)) ** 2
            + table.has_pool * self.pool**2
            + switched_on * self.unpriced**2
        )
        return found

    def between(self, some: FeatureTable, others: FeatureTable) -> Array:
        """Covariances, (some, others)."""
        return self.of(Pairs.of(some, others))

    def of(self, pairs: "Pairs") -> Array:
        """Covariances of pairs."""
        same = pairs.same
        shared = (
            (same["precision.weights"] & same["precision.kv_cache"]) * self.precision**2
            + same["mode"] * (self.mode**2 + self.slope**2 * pairs.loads)
            + same[RELEASE] * self.release**2
        )
        found: Array = (
            self.overall**2 + same["engine"] * (self.engine**2 + shared) + self._unpriced(pairs) + self._local(pairs)
        )
        if pairs.have_pool.any():
            found += self.pool**2 * pairs.have_pool * matern(pairs.distance(self.lengths, POOL))
        return found

    def _unpriced(self, pairs: "Pairs") -> Any:
        alike = [
            are_on * (pairs.same[name] if name in NAMES else matern(pairs.distance(self.lengths, (name,))))
            for name, are_on in pairs.are_on.items()
        ]
        return self.unpriced**2 * sum(alike)

    def _local(self, pairs: "Pairs") -> Array:
        found = self.local**2 * matern(pairs.distance(self.lengths, NUMBERS))
        for name, left in zip(LOCAL_NAMES, self.unlike, strict=True):
            if name in pairs.differing:
                found *= np.where(pairs.same[name], 1.0, left)
        return found


def matern(distance: Array) -> Array:
    """Correlation at a distance in units of lengths: Matern 3/2."""
    scaled = math.sqrt(3) * distance
    found: Array = (1 + scaled) * np.exp(-scaled)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """What each of some rows and each of others have in common, as arrays (some, others); no kernel changes it.

    `same` says it by name, `squares` by number, as squared differences; numbers that no pair differs in are left out,
    and `differing` has the names that some pair differs in. `loads` are products of loads beyond the usual, `are_on`
    says by unpriced knob where both have it, and `have_pool` where both have prefill workers.
    """

    same: Mapping[str, NDArray[np.bool_]]
    differing: frozenset[str]
    squares: Mapping[str, Array]
    loads: Array
    are_on: Mapping[str, NDArray[np.bool_]]
    have_pool: NDArray[np.bool_]

    @classmethod
    def of(cls, some: FeatureTable, others: FeatureTable) -> "Pairs":
        same = {name: np.equal.outer(some.named(name), others.named(name)) for name in NAMES}
        apart = {
            NUMBERS[at]: np.subtract.outer(some.numbers[:, at], others.numbers[:, at]) for at in some.varying(others)
        }
        return cls(
            same=same,
            differing=frozenset(name for name, equal in same.items() if not equal.all()),
            squares={name: difference**2 for name, difference in apart.items()},
            loads=np.outer(some.numbers[:, 0] - USUAL_LOAD, others.numbers[:, 0] - USUAL_LOAD),
            are_on={
                name: np.logical_and.outer(some.is_on(name), others.is_on(name))
                for name in UNPRICED
                if some.is_on(name).any()
            },
            have_pool=np.logical_and.outer(some.has_pool, others.has_pool),
        )

    def distance(self, lengths: Sequence[float], names: Iterable[str]) -> Array:
        """In units of lengths, over these numbers."""
        total = np.zeros(self.loads.shape)
        for name in names:
            length = lengths[NUMBERS.index(name)]
            if name in self.squares and math.isfinite(length):
                total += self.squares[name] / length**2
        found: Array = np.sqrt(total)
        return found

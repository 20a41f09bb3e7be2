"""Features: a configuration under a load, as the surrogate sees it. Every knob is one; few follow from several."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import Disaggregation, Engine, ServingConfig
from search_spaces.knobs import KNOBS, PREFILL

Array = NDArray[np.float64]

DERIVED = ("load", "gpus", "prefill share")
"""Numbers that no knob has, as logarithms to base 2: requests in flight for each GPU, GPUs of a worker, and prefill
GPUs for each decoding one (0 where aggregated)."""

RELEASE = "engine.version"

NUMBERS: tuple[str, ...] = (*DERIVED, *(knob.name for knob in KNOBS.values() if knob.is_number))
"""What features have on the scales of their knobs: the closer, the more alike the errors of predictions."""

NAMES: tuple[str, ...] = tuple(knob.name for knob in KNOBS.values() if not knob.is_number)
"""What features have as names: the same or another."""

_DEFAULT_POOL = ServingConfig(engine=Engine(name="", version=""), disaggregation=Disaggregation())
_WITHOUT_POOL = {name: knob.feature(_DEFAULT_POOL) for name, knob in KNOBS.items() if name.startswith(PREFILL)}
"""What an aggregated configuration has in place of its prefill workers' features: those of default ones, so that the
mode alone tells it from a disaggregated one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One configuration under a load: NUMBERS and NAMES."""

    numbers: tuple[float, ...]
    names: tuple[str, ...]


def features_of(config: ServingConfig, load: float, *, release: str = "") -> Features:
    """`load` is that of the whole deployment, in requests in flight; the surrogate looks at its share on each GPU.

    `release` is what ran, where it is not the release that the configuration names.
    """
    layout, pool = config.layout, config.disaggregation
    derived = (
        log2(max(load, 1e-6) / config.gpus),
        log2(layout.gpus_per_worker),
        log2(pool.prefill_layout.gpus / layout.gpus) if pool else 0.0,
    )
    without = {} if pool else _WITHOUT_POOL
    read = {name: knob.feature(config) for name, knob in KNOBS.items() if name not in without} | without
    if release:
        read[RELEASE] = release
    return Features(
        numbers=derived + tuple(float(read[name]) for name in NUMBERS[len(DERIVED) :]),
        names=tuple(str(read[name]) for name in NAMES),
    )


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of many configurations: (n, numbers), and (n, names) in which equal names are equal numbers.

    An empty name is 0.
    """

    numbers: Array
    names: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Features]) -> "FeatureTable":
        numbers = np.array([row.numbers for row in rows], dtype=np.float64).reshape(len(rows), len(NUMBERS))
        codes = [list(map(_code, row.names)) for row in rows]
        return cls(numbers, np.array(codes, dtype=np.int64).reshape(len(rows), len(NAMES)))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: "slice | NDArray[np.int64]") -> "FeatureTable":
        return FeatureTable(self.numbers[index], self.names[index])

    def named(self, name: str) -> NDArray[np.int64]:
        """One of NAMES, of each row."""
        return self.names[:, NAMES.index(name)]

    def is_on(self, name: str) -> NDArray[np.bool_]:
        """Of each row, whether a knob has a name, or a number other than 0."""
        found: NDArray[np.bool_] = self.named(name) != 0 if name in NAMES else self.numbers[:, NUMBERS.index(name)] != 0
        return found

    @property
    def has_pool(self) -> NDArray[np.bool_]:
        """Of each row, whether it has prefill workers."""
        found: NDArray[np.bool_] = self.named("mode") == _code("disaggregated")
        return found

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """The lowest and the highest of each number."""
        return self.numbers.min(axis=0, initial=np.inf), self.numbers.max(axis=0, initial=-np.inf)

    def varying(self, other: "FeatureTable") -> list[int]:
        """Which of NUMBERS are not the same in all rows of both."""
        low = np.minimum(self.bounds[0], other.bounds[0])
        high = np.maximum(self.bounds[1], other.bounds[1])
        return np.flatnonzero(low < high).tolist()

    def with_more(self, other: "FeatureTable") -> "FeatureTable":
        return FeatureTable(np.vstack([self.numbers, other.numbers]), np.vstack([self.names, other.names]))


def _code(name: str) -> int:
    return zlib.crc32(name.encode())

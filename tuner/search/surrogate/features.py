"""Features: a configuration under a load, as the surrogate sees it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import ServingConfig

Array = NDArray[np.float64]

NUMBERS: tuple[str, ...] = (
    "load",
    "gpus",
    "tensor",
    "pipeline",
    "attention_dp",
    "expert",
    "prefill share",
    "draft_length",
    "max_sequences",
    "max_batched_tokens",
)
"""What places have in logarithms to base 2 (`draft_length` as it is): the closer, the more alike their errors."""

NAMES: tuple[str, ...] = ("engine", "weights", "kv_cache", "mode", "speculation", "release")
"""What places have as names: the same or another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A configuration under a load, as the surrogate sees it: NUMBERS and NAMES."""

    numbers: tuple[float, ...]
    names: tuple[str, ...]


def place_of(config: ServingConfig, load: float, *, release: str = "") -> Place:
    """`load` is that of the whole deployment, in requests in flight; the surrogate looks at its share on each GPU.

    `release` is what ran, where it is not the release that the configuration names.
    """
    layout, pool = config.layout, config.disaggregation
    return Place(
        numbers=(
            log2(max(load, 1e-6) / config.gpus),
            log2(layout.gpus_per_worker),
            log2(layout.tensor),
            log2(layout.pipeline),
            log2(layout.attention_dp),
            log2(layout.expert),
            log2(pool.prefill_layout.gpus / layout.gpus) if pool else 0.0,
            float(config.speculation.draft_length),
            log2(config.batching.max_sequences),
            log2(config.batching.max_batched_tokens),
        ),
        names=(
            config.engine.name,
            config.precision.weights,
            config.precision.kv_cache,
            config.mode,
            config.speculation.method,
            release or config.engine.version,
        ),
    )


@dataclass(frozen=True, eq=False)
class Places:
    """Many places as arrays: (n, numbers), and (n, names) in which equal names are equal numbers."""

    numbers: Array
    names: NDArray[np.int64]

    @classmethod
    def of(cls, places: Sequence[Place]) -> "Places":
        numbers = np.array([place.numbers for place in places], dtype=np.float64).reshape(len(places), len(NUMBERS))
        codes = [[zlib.crc32(name.encode()) for name in place.names] for place in places]
        return cls(numbers, np.array(codes, dtype=np.int64).reshape(len(places), len(NAMES)))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: "slice | NDArray[np.int64]") -> "Places":
        return Places(self.numbers[index], self.names[index])

    def with_more(self, other: "Places") -> "Places":
        return Places(np.vstack([self.numbers, other.numbers]), np.vstack([self.names, other.names]))

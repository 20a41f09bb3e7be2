"""Belief: what each measurement teaches about the error of the predictions, a Gaussian process on log residuals."""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import log2

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import ServingConfig

Array = NDArray[np.float64]

NUMBERS: tuple[str, ...] = (
    "load",
    "gpus",
    "attention_dp",
    "expert",
    "prefill share",
    "draft_length",
    "max_sequences",
    "max_batched_tokens",
)
"""What places have in logarithms to base 2 (`draft_length` as it is): the closer, the more alike their errors."""

NAMES: tuple[str, ...] = ("engine", "weights", "kv_cache", "mode", "speculation")
"""What places have as names: the same or another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A configuration under a load, as the belief sees it: NUMBERS and NAMES."""

    numbers: tuple[float, ...]
    names: tuple[str, ...]


def place_of(config: ServingConfig, load: float) -> Place:
    """`load` is that of the whole deployment, in any unit; the belief looks at its share on each GPU."""
    layout, pool = config.layout, config.disaggregation
    return Place(
        numbers=(
            log2(max(load, 1e-6) / config.gpus),
            log2(layout.gpus_per_worker),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How the log residuals of two places vary together: standard deviations, and lengths in units of NUMBERS.

    `overall` is shared by all places; `engine`, `precision` and `mode` by those of the same engine, then of its same
    number formats or mode; `local` fades with the distance (Matern 3/2, smooth enough for kernels that switch).
    A name that differs leaves `unlike` of the local correlation. `noise` is of one measurement: that of repeats, and
    what no input explains.
    """

    overall: float
    engine: float
    precision: float
    mode: float
    local: float
    noise: float
    lengths: tuple[float, ...] = (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0)
    unlike: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5, 0.5)

    @property
    def variance(self) -> float:
        """Of one place before anything is measured."""
        parts = (self.overall, self.engine, self.precision, self.mode, self.local)
        return sum(part**2 for part in parts)

    def between(self, some: Places, others: Places) -> Array:
        """Covariances, (some, others)."""
        same = some.names[:, None, :] == others.names[None, :, :]
        engine, weights, kv_cache, mode, _ = (same[:, :, index] for index in range(len(NAMES)))
        apart = (some.numbers[:, None, :] - others.numbers[None, :, :]) / np.array(self.lengths)
        distance = np.sqrt(3 * np.einsum("ijk,ijk->ij", apart, apart))
        alike = np.exp(~same @ np.log(self.unlike))
        found: Array = (
            self.overall**2
            + engine * (self.engine**2 + (weights & kv_cache) * self.precision**2 + mode * self.mode**2)
            + self.local**2 * (1 + distance) * np.exp(-distance) * alike
        )
        return found

    def fitted(self, places: Places, residuals: Array) -> "Kernel":
        """The kernel that makes the residuals most likely, held near this one (maximum a posteriori).

        Standard deviations and lengths are log-normal around this kernel's, by a factor of two or so.
        """
        from scipy.optimize import minimize

        start = self._logs()

        def misfit(logs: Array) -> float:
            kernel = self._from(logs)
            matrix = kernel.between(places, places) + kernel.noise**2 * np.eye(len(places))
            try:
                factor = np.linalg.cholesky(matrix)
            except np.linalg.LinAlgError:
                return 1e9
            white = np.linalg.solve(factor, residuals)
            likelihood = white @ white / 2 + np.log(np.diag(factor)).sum()
            return float(likelihood + ((logs - start) ** 2).sum() / (2 * LOOSENESS**2))

        bounds = [(log - 3, log + 3) for log in start]
        return self._from(minimize(misfit, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": FIT_STEPS}).x)

    def _logs(self) -> Array:
        scales = (self.engine, self.precision, self.mode, self.local, self.noise)
        odds = [value / (1 - value) for value in self.unlike]
        logs: Array = np.log(np.array([*scales, *self.lengths, *odds]))
        return logs

    def _from(self, logs: Array) -> "Kernel":
        engine, precision, mode, local, noise = np.exp(logs[:5]).tolist()
        lengths = tuple(np.exp(logs[5 : 5 + len(NUMBERS)]).tolist())
        unlike = tuple((1 / (1 + np.exp(-logs[5 + len(NUMBERS) :]))).tolist())
        return replace(
            self,
            engine=engine,
            precision=precision,
            mode=mode,
            local=local,
            noise=noise,
            lengths=lengths,
            unlike=unlike,
        )


class Posterior:
    """The residual of one quantity at each place of a table, learned from one observation after the other.

    An observation costs time in proportion to the table and to the observations so far (a growing Cholesky factor).
    """

    def __init__(self, kernel: Kernel, table: Places) -> None:
        self.kernel = kernel
        self.table = table
        self.mean: Array = np.zeros(len(table))
        self.variance: Array = np.full(len(table), kernel.variance)
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
        spread = math.sqrt(max(self.kernel.variance - float(own @ own), 0.0) + noise**2)
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
        self.variance = np.append(self.variance, self.kernel.variance - (reach**2).sum(axis=0))

    @property
    def seen(self) -> tuple[Places, Array]:
        """Where something was observed, and the residuals."""
        return self.table[np.array(self._indices, dtype=np.int64)], np.array(self._residuals)

    def under(self, kernel: Kernel) -> "Posterior":
        """What the same observations teach under another kernel."""
        other = Posterior(kernel, self.table)
        for index, residual in zip(self._indices, self._residuals, strict=True):
            other.observe(index, residual)
        return other

    @property
    def observations(self) -> int:
        return len(self._whitened)

    @property
    def surprise(self) -> float:
        """Mean square of the observations in units of what was expected: 1 where the kernel's scale is right."""
        return float(self._whitened @ self._whitened / len(self._whitened)) if len(self._whitened) else 1.0


FIRST_FIT = 8
FIT_AGAIN = 2.0
LAST_FIT = 64
"""The kernel of the cost is fitted at FIRST_FIT observations, then at each FIT_AGAIN times more, to LAST_FIT."""

LOOSENESS = 0.7
FIT_STEPS = 12

COST = "cost"
"""The quantity that is minimised; the other quantities of a belief are promises, by their keys."""

TTFT = Kernel(overall=0.4, engine=0.3, precision=0.15, mode=0.2, local=0.35, noise=0.10)
TPOT = Kernel(overall=0.12, engine=0.10, precision=0.08, mode=0.05, local=0.15, noise=0.05)
SIMULATOR_BIAS = {"ttft": 0.35, "tpot": 0.0}
"""Mean log(measured / simulated), from the recorded Hopper rows; Blackwell rows are left to judge it by."""

UNINFORMED = Kernel(overall=3.0, engine=0.5, precision=0.5, mode=0.3, local=0.8, noise=0.02)
"""Of the logarithm itself, where nothing is predicted."""

PRIOR_STRENGTH = 6.0
"""For how many observations the scale of the kernels counts, against the scale that is observed."""

CAUTION = 1.0
"""The power of P(SLA kept) by which the expected improvement is weighed, beyond the one that it contains."""

THRIFT = 0.1
"""The power of a trial's GPU time by which its worth is divided."""

KEPT_SLACK = 0.3
"""Log of the room below a promise that is assumed of a configuration said to keep it at a load of its choice."""


def kernel_of(quantity: str, *, informed: bool = True) -> Kernel:
    """How wrong predictions of a quantity are, before any is checked."""
    if not informed:
        return UNINFORMED
    return TTFT if quantity.startswith(("ttft", "e2e")) else TPOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Something to try: its parameters and place, and what is predicted of it.

    `cost` is the logarithm of dollars, None where nothing is predicted; `ratios` are logarithms of latency / limit
    by promise, absent where nothing is predicted. `gpu_time` is that of the trial, in any unit.
    """

    params: dict[str, str | int]
    place: Place
    cost: float | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    gpu_time: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is believed of each option: the log of its cost (mean and standard deviation), and P(SLA kept)."""

    cost: Array
    sd: Array
    kept: Array


class Belief:
    """What is believed of a table of options, from predictions and from the measurements so far."""

    def __init__(self, options: Sequence[Option], promises: Iterable[str]) -> None:
        self.options = list(options)
        self.informed = any(option.cost is not None for option in options)
        self._promises = tuple(promises)
        self._next_fit = FIRST_FIT
        self._predicted = {name: self._predictions(name, self.options) for name in (COST, *self._promises)}
        places = Places.of([option.place for option in self.options])
        self._posteriors = {
            name: Posterior(kernel_of(name, informed=self.informed), places) for name in self._predicted
        }

    @property
    def ignorant(self) -> bool:
        """Nothing is predicted and nothing was measured."""
        return not self.informed and not self._posteriors[COST].observations

    def extend(self, options: Sequence[Option]) -> None:
        """Adds options to the end of the table."""
        places = Places.of([option.place for option in options])
        self.options += options
        for name, posterior in self._posteriors.items():
            posterior.extend(places)
            self._predicted[name] = np.append(self._predicted[name], self._predictions(name, options))

    def observe(self, index: int, measured: dict[str, float]) -> None:
        """Logarithms, as in Option, of what was measured of an option."""
        for name, value in measured.items():
            if name in self._posteriors:
                self._posteriors[name].observe(index, value - self._predicted[name][index])
        if COST in measured:
            self._fit()

    def _fit(self) -> None:
        """Learns the kernel of the cost anew where there are enough observations more than last time."""
        posterior = self._posteriors[COST]
        if not self._next_fit <= posterior.observations <= LAST_FIT:
            return
        self._next_fit = max(posterior.observations + 1, round(posterior.observations * FIT_AGAIN))
        kernel = kernel_of(COST, informed=self.informed).fitted(*posterior.seen)
        self._posteriors[COST] = posterior.under(kernel)

    def outlook(self) -> Outlook:
        from scipy.special import ndtr

        kept = np.ones(len(self.options))
        for name in self._promises:
            mean, sd = self._believed(name)
            kept *= ndtr(-mean / sd)
        mean, sd = self._believed(COST)
        return Outlook(cost=mean, sd=sd, kept=kept)

    def worth(self, best: float | None) -> Array:
        """How much each option promises as the next trial; `best` is the log of the lowest cost that kept the SLA.

        Expected improvement of tokens for each dollar over the best, times P(SLA kept), which counts once more for
        CAUTION, for each GPU-second to the power of THRIFT.
        """
        outlook = self.outlook()
        gain = expected_gain(-outlook.cost, outlook.sd, None if best is None else -best)
        time = np.array([option.gpu_time for option in self.options])
        worth: Array = gain * outlook.kept ** (1 + CAUTION) / time**THRIFT
        return worth

    def _believed(self, name: str) -> tuple[Array, Array]:
        """Mean, and standard deviation with the noise of one measurement, scaled by the errors seen so far."""
        posterior = self._posteriors[name]
        seen = posterior.observations
        scale = (PRIOR_STRENGTH + seen * posterior.surprise) / (PRIOR_STRENGTH + seen)
        sd: Array = np.sqrt(scale * (posterior.variance.clip(1e-12) + posterior.kernel.noise**2))
        return self._predicted[name] + posterior.mean, sd

    def _predictions(self, name: str, options: Sequence[Option]) -> Array:
        if name == COST:
            return np.array([option.cost or 0.0 for option in options])
        return np.array([option.ratios.get(name, 0.0) for option in options])


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

"""Surrogate: what each measurement teaches about the error of the predictions, a Gaussian process on log residuals."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
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


USUAL_LOAD = 4.0
"""Logarithm to base 2 of the requests in flight for each GPU at which errors that grow with load are as they are."""

SCALES = ("engine", "precision", "mode", "release", "slope", "local", "noise")
"""What `Kernel.fitted` learns, beside lengths and what a name that differs leaves."""


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


FIRST_FIT = 8
FIT_AGAIN = 2.0
LAST_FIT = 64
"""The kernel of the cost is fitted at FIRST_FIT observations, then at each FIT_AGAIN times more, to LAST_FIT."""

FIT_EACH = 4
"""Where nothing is predicted the kernel is fitted from so many observations on, and at each so many more."""

LOOSENESS = 0.8
FIT_STEPS = 12

COST = "cost"
"""The quantity that is minimised; the other quantities of a surrogate are SLOs, by their keys."""

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

PRIOR_STRENGTH = 3.0
"""For how many observations the scale of the kernels counts, against the scale that is observed."""

FIRST_CAUTION, CAUTION = 1.0, 0.45
"""The power of P(SLA met) by which an expected gain is weighed, beyond the one that it contains: until something was
measured to meet the SLA, and then."""

THRIFT = 0.1
"""The power of a trial's GPU time by which its worth is divided."""

MET_SLACK = 0.3
"""Log of the room below an SLO that is assumed of a configuration said to keep it at a load of its choice."""

DRAWS = 256
"""Joint draws of what is promised, by which the gain is expected where the cost follows from them."""


def kernel_of(quantity: str, *, informed: bool = True) -> Kernel:
    """How wrong predictions of a quantity are, before any is checked."""
    if not informed:
        return UNINFORMED
    return TTFT if quantity.startswith(("ttft", "e2e")) else TPOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Something to try: its parameters and place, and what is predicted of it.

    `cost` is the logarithm of dollars, None where nothing is predicted; `ratios` are logarithms of latency / limit
    by SLO, absent where nothing is predicted. `gpu_time` is that of the trial, in any unit.
    """

    params: dict[str, str | int]
    place: Place
    cost: float | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    gpu_time: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is believed of each option: the log of its cost (mean and standard deviation), and P(SLA met)."""

    cost: Array
    sd: Array
    kept: Array


CostOf = Callable[[Mapping[str, Array]], Array]
"""The logarithm of the cost (options, draws) as it follows from the logarithms of latency / limit, by SLO."""


class Surrogate:
    """What is believed of a table of options, from predictions and from the measurements so far.

    Where loads are given, and not looked for, the cost follows from the latencies: `cost_of` says how, and the
    SLOs are all that is learned.
    """

    def __init__(self, options: Sequence[Option], slos: Iterable[str], *, cost_of: CostOf | None = None) -> None:
        self.options = list(options)
        self.informed = any(option.cost is not None for option in options)
        self._slos = tuple(slos)
        self._cost_of = cost_of
        self._next_fit = FIRST_FIT if self.informed else FIT_EACH
        self._predicted = {name: self._predictions(name, self.options) for name in (COST, *self._slos)}
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
        seen = posterior.observations
        if self._cost_of is not None or not self._next_fit <= seen <= LAST_FIT:
            return
        self._next_fit = max(seen + 1, round(seen * FIT_AGAIN)) if self.informed else seen + FIT_EACH
        kernel = kernel_of(COST, informed=self.informed).fitted(*posterior.seen, start=posterior.kernel)
        self._posteriors[COST] = posterior.under(kernel)

    def outlook(self) -> Outlook:
        if self._cost_of is not None:
            costs = self._cost_of(self._drawn())
            return Outlook(cost=costs.mean(axis=1), sd=costs.std(axis=1), kept=self._kept())
        mean, sd = self._believed(COST)
        return Outlook(cost=mean, sd=sd, kept=self._kept())

    def acquisition(self, best: float | None) -> Array:
        """How much each option SLOs as the next trial; `best` is the log of the lowest cost that met the SLA.

        Expected improvement of tokens for each dollar over the best, times P(SLA met), which counts once more for
        caution, for each GPU-second to the power of THRIFT.
        """
        time = np.array([option.gpu_time for option in self.options])
        caution = FIRST_CAUTION if best is None else CAUTION
        acquisition: Array = self._gain(best) * self._kept() ** caution / time**THRIFT
        return acquisition

    def _gain(self, best: float | None) -> Array:
        """E[gain where the SLA is met]."""
        if self._cost_of is None:
            outlook = self.outlook()
            return expected_gain(-outlook.cost, outlook.sd, None if best is None else -best) * outlook.kept
        drawn = self._drawn()
        costs = self._cost_of(drawn)
        keeps = np.all([ratios <= 0 for ratios in drawn.values()], axis=0)
        values = np.exp((costs.min() if best is None else best) - costs)
        gain: Array = ((values if best is None else np.maximum(values - 1, 0)) * keeps).mean(axis=1)
        return gain + 1e-9 * self._kept()

    def _kept(self) -> Array:
        from scipy.special import ndtr

        kept = np.ones(len(self.options))
        for name in self._slos:
            mean, sd = self._believed(name)
            kept *= ndtr(-mean / sd)
        return kept

    def _drawn(self) -> dict[str, Array]:
        """Logarithms of latency / limit by SLO, (options, DRAWS): the same quantiles for each option."""
        believed = {name: self._believed(name) for name in self._slos}
        normals = quantiles(len(self._slos), DRAWS)
        return {
            name: mean[:, None] + sd[:, None] * column
            for (name, (mean, sd)), column in zip(believed.items(), normals, strict=True)
        }

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

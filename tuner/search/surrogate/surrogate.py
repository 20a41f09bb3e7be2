"""Surrogate: what each measurement teaches about the error of the predictions, a Gaussian process on log residuals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuner.search.surrogate.acquisition import DRAWS, Outlook, acquisition, joint_acquisition, quantiles
from tuner.search.surrogate.features import Array, Features, FeatureTable
from tuner.search.surrogate.fitting import fitted
from tuner.search.surrogate.process import Posterior
from tuner.search.surrogate.quantities import COST, kernel_of

FIRST_FIT = 8
FIT_AGAIN = 2.0
LAST_FIT = 64
"""The kernel of the cost is fitted at FIRST_FIT observations, then at each FIT_AGAIN times more, to LAST_FIT."""

FIT_EACH = 4
"""Where nothing is predicted the kernel is fitted from so many observations on, and at each so many more."""

PRIOR_STRENGTH = 3.0
"""For how many observations the scale of the kernels counts, against the scale that is observed."""

MET_SLACK = 0.3
"""Log of the headroom below an SLO that is assumed of a configuration predicted to meet it at a load of its choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Something to try: its parameters and features, and what is predicted of it.

    `cost` is the logarithm of dollars, None where nothing is predicted; `ratios` are logarithms of latency / limit
    by SLO, absent where nothing is predicted.
    """

    params: dict[str, str | int]
    features: Features
    cost: float | None = None
    ratios: dict[str, float] = field(default_factory=dict)


CostOf = Callable[[Mapping[str, Array]], Array]
"""The logarithm of the cost (options, draws) as it follows from the logarithms of latency / limit, by SLO."""


class Surrogate:
    """Cost and latencies of a table of options, from predictions and from the measurements so far.

    Where loads are given, and not looked for, the cost follows from the latencies: `cost_of` says how, and the
    SLOs are all that is learned.
    """

    def __init__(self, options: Sequence[Option], slos: Iterable[str], *, cost_of: CostOf | None = None) -> None:
        self.options = list(options)
        self.informed = any(option.cost is not None for option in options)
        self._slos = tuple(slos)
        self._cost_of = cost_of
        self._next_fit = FIRST_FIT if self.informed else FIT_EACH
        self._table = _table(self.options)
        self._predicted = {name: _predictions(name, self.options) for name in (COST, *self._slos)}
        self._posteriors = {
            name: Posterior(kernel_of(name, informed=self.informed), self._table) for name in self._predicted
        }

    @property
    def ignorant(self) -> bool:
        """Nothing is predicted and nothing was measured."""
        return not self.informed and not self._posteriors[COST].observations

    def extend(self, options: Sequence[Option]) -> None:
        """Adds options to the end of the table."""
        self.options += options
        self._table = self._table.with_more(_table(options))
        for name, posterior in self._posteriors.items():
            posterior.extend(self._table)
            self._predicted[name] = np.append(self._predicted[name], _predictions(name, options))

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
        kernel = fitted(kernel_of(COST, informed=self.informed), *posterior.seen, start=posterior.kernel)
        self._posteriors[COST] = posterior.under(kernel)

    def outlook(self) -> Outlook:
        if self._cost_of is not None:
            costs = self._cost_of(self._drawn())
            return Outlook(cost=costs.mean(axis=1), sd=costs.std(axis=1), met=self._met())
        mean, sd = self._posterior(COST)
        return Outlook(cost=mean, sd=sd, met=self._met())

    def acquisition(self, best: float | None) -> Array:
        """Of each option as the next trial; `best` is the log of the lowest cost that met the SLA."""
        if self._cost_of is None:
            return acquisition(self.outlook(), best)
        drawn = self._drawn()
        return joint_acquisition(self._cost_of(drawn), drawn, self._met(), best)

    def _met(self) -> Array:
        """P(SLA met) of each option: errors of SLOs are taken as independent."""
        from scipy.special import ndtr

        met = np.ones(len(self.options))
        for name in self._slos:
            mean, sd = self._posterior(name)
            met *= ndtr(-mean / sd)
        return met

    def _drawn(self) -> dict[str, Array]:
        """Logarithms of latency / limit by SLO, (options, DRAWS): the same quantiles for each option."""
        posteriors = {name: self._posterior(name) for name in self._slos}
        normals = quantiles(len(self._slos), DRAWS)
        return {
            name: mean[:, None] + sd[:, None] * column
            for (name, (mean, sd)), column in zip(posteriors.items(), normals, strict=True)
        }

    def _posterior(self, name: str) -> tuple[Array, Array]:
        """Mean, and standard deviation with the noise of one measurement, scaled by the errors seen so far."""
        posterior = self._posteriors[name]
        seen = posterior.observations
        scale = (PRIOR_STRENGTH + seen * posterior.surprise) / (PRIOR_STRENGTH + seen)
        sd: Array = np.sqrt(scale * (posterior.variance.clip(1e-12) + posterior.kernel.noise**2))
        return self._predicted[name] + posterior.mean, sd


def _table(options: Sequence[Option]) -> FeatureTable:
    return FeatureTable.of([option.features for option in options])


def _predictions(name: str, options: Sequence[Option]) -> Array:
    if name == COST:
        return np.array([option.cost or 0.0 for option in options])
    return np.array([option.ratios.get(name, 0.0) for option in options])

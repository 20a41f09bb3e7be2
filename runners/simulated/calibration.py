"""Calibration: step times corrected by a handful of measurements of the same deployment, or why they are not.

A posterior over four corrections, given measured mean TTFT and TPOT. The forward model is the simulator, made linear in
the logarithm of its latencies; priors are normal, noise is robust (Student's t by reweighting) and partly shared by
measurements of one layout.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from runners.measurement import Measurement
from runners.simulated.silicon import Silicon, StepKey
from runners.simulated.simulated import Simulated
from runners.simulated.step_time import StepTimes
from runners.workload.workload import LoadedWorkload
from search_spaces.config import EngineName, Layout, ServingConfig, Weights
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import System
from search_spaces.models.model import Model

Floats = NDArray[np.float64]

FEWEST = 3
"""Measurements (each of another configuration, load or length) that a calibration needs."""
MOST = 24
"""Measurements that a calibration reads; of more, these many are taken evenly from their order by layout and load."""

PRIOR_SD = (0.3, 0.3, 1e-3, 0.03)
"""Before any measurement: logarithms of the factors, seconds for each iteration, seconds for each request."""
FURTHEST = 2.5
"""Prior standard deviations that a correction may lie from no correction; further off it corrects something else."""
NOISE = (0.2, 0.1)
"""Expected scatter of measured over predicted, in logarithms, that no correction explains: TTFT, TPOT."""
LARGEST_NOISE = (0.5, 0.25)
"""Scatter beyond which the step times are not what is wrong."""
NOISE_WORTH = 4.0
"""How many measurements the expected scatter counts for against the one found."""
ALIKE = 0.2
"""Share of the scatter's variance that measurements of one layout have in common."""
TAILS = 5.0
"""Degrees of freedom of the noise."""
LEAST_LEARNED = 0.75
"""A calibration abstains where it leaves more than this share of the prior's standard deviation of TPOT."""

STEPS = (0.2, 0.2, 1e-3, 0.02)  # of the finite differences
REFINEMENTS = 1
REWEIGHTINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Factors on passes with prompts and on decode steps; seconds more for each iteration and for each request."""

    prefill: float = 1.0
    decode: float = 1.0
    iteration_s: float = 0.0
    request_s: float = 0.0

    def apply(self, steps: StepTimes) -> StepTimes:
        if self == Correction():
            return steps
        return steps.corrected(**{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def of(cls, values: Sequence[float] | Floats) -> "Correction":
        """From the logarithms of the two factors and the two times in seconds."""
        prefill, decode, iteration_s, request_s = (float(value) for value in values)
        return cls(prefill=math.exp(prefill), decode=math.exp(decode), iteration_s=iteration_s, request_s=request_s)

    def __str__(self) -> str:
        return (
            f"prefill x {self.prefill:.2f}, decode x {self.decode:.2f}, "
            f"{self.iteration_s * 1000:+.2f} ms an iteration, {self.request_s * 1000:+.0f} ms a request"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What a calibration holds for: its kernels are measured anew where any of these differs."""

    model: str
    system: str
    engine: EngineName
    release: str
    weights: Weights

    @classmethod
    def of(cls, model: Model, system: System, config: ServingConfig | StepKey, *, release: str = "") -> "Domain":
        """`release` where it is not the one that the configuration names."""
        weights = config.weights if isinstance(config, StepKey) else config.precision.weights
        return cls(
            model=model.name,
            system=system.name,
            engine=config.engine.name,
            release=release or config.engine.version,
            weights=weights,
        )

    def __str__(self) -> str:
        return f"{self.model} in {self.weights} on {self.system}, {self.engine} {self.release}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Mean TTFT and TPOT in seconds."""

    ttft: float
    tpot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was measured of one configuration under one load, in the domain that it ran in."""

    domain: Domain
    config: ServingConfig
    loaded: LoadedWorkload
    latencies: Latencies

    @property
    def layouts(self) -> tuple[Layout, Layout | None]:
        pool = self.config.disaggregation
        return self.config.layout, pool.prefill_layout if pool else None

    @property
    def usable(self) -> bool:
        """False where no second token was ever produced, or a figure is none."""
        return all(math.isfinite(value) and value > 0 for value in astuple(self.latencies))


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstained:
    """No correction, and why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A predicted latency in seconds and the standard deviation of its logarithm."""

    seconds: float
    log_sd: float

    def interval(self, share: float) -> tuple[float, float]:
        """Seconds between which this share of measurements is expected."""
        reach = math.exp(NormalDist().inv_cdf((1 + share) / 2) * self.log_sd)
        return self.seconds / reach, self.seconds * reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The posterior: most probable correction, its covariance, and the scatter of TTFT and TPOT that is left.

    `covariance` is 4 x 4, in the units of PRIOR_SD; `noise` are standard deviations of logarithms.
    """

    domain: Domain
    correction: Correction
    covariance: tuple[tuple[float, ...], ...]
    noise: tuple[float, float]
    measurements: int

    def abstains(self, domain: Domain) -> Abstained | None:
        """Why it does not hold there; None where it does."""
        if domain == self.domain:
            return None
        return Abstained(reason=f"calibrated for {self.domain}, not for {domain}")

    def predict(self, forward: "Forward", config: ServingConfig, loaded: LoadedWorkload) -> tuple[Spread, Spread]:
        """Mean TTFT and TPOT of a configuration of its domain, with uncertainty (six runs of the forward model)."""
        latencies = forward(self.correction, config, loaded)
        return self.spread(latencies, slopes_of(forward, config, loaded))

    def spread(self, latencies: Latencies, slopes: Floats) -> tuple[Spread, Spread]:
        """`slopes` (2 x 4) are those of the logarithms of TTFT and TPOT by the corrections."""
        variances = np.diag(slopes @ np.array(self.covariance) @ slopes.T)
        found = [
            Spread(seconds=seconds, log_sd=math.sqrt(float(variance) + noise**2))
            for seconds, variance, noise in zip(astuple(latencies), variances, self.noise, strict=True)
        ]
        return found[0], found[1]


Outcome = Calibration | Abstained
Forward = Callable[[Correction, ServingConfig, LoadedWorkload], Latencies]
"""Predicts latencies under a correction. Raises InfeasibleError for a configuration that cannot be served."""


class CorrectedSilicon(Silicon):
    """A silicon database whose step times are corrected where `correction` knows one for them."""

    def __init__(self, silicon: Silicon, correction: Callable[[StepKey], Correction | None]) -> None:
        super().__init__(silicon.model, silicon.system, longest_context=silicon.longest_context)
        self._silicon = silicon
        self._correction = correction
        self._corrected: dict[StepKey, StepTimes] = {}

    def step_times(self, key: StepKey) -> StepTimes:
        """Raises InfeasibleError where the database has no kernel for the combination."""
        if key not in self._corrected:
            steps, correction = self._silicon.step_times(key), self._correction(key)
            self._corrected[key] = steps if correction is None else correction.apply(steps)
        return self._corrected[key]


def simulated(silicon: Silicon) -> Forward:
    """The simulator as the forward model; what it predicts without correction and next to it is kept."""
    corrected = cache(lambda correction: CorrectedSilicon(silicon, lambda _key: correction))
    kept: dict[tuple[Correction, ServingConfig, LoadedWorkload], Latencies] = {}

    def forward(correction: Correction, config: ServingConfig, loaded: LoadedWorkload) -> Latencies:
        key = (correction, config, loaded)
        if key in kept:
            return kept[key]
        with Simulated(corrected(correction)).serve(config) as measure:
            run = measure(loaded)
        found = Latencies(ttft=run.ttft.mean, tpot=run.tpot.mean)
        if correction in NEXT_TO_NONE:
            kept[key] = found
        return found

    return forward


def calibrate(observations: Iterable[Observation], forward: Forward) -> Outcome:
    """The correction that the observations, all of one domain, call for; or why there is none.

    Raises ValueError for observations of several domains, InfeasibleError for one that cannot be served.
    """
    usable = _handful([one for one in observations if one.usable])
    domains = {one.domain for one in usable}
    if len(domains) > 1:
        raise ValueError(f"a calibration is of one domain, but got {', '.join(sorted(map(str, domains)))}")
    distinct = {(one.config, one.loaded.load, one.loaded.workload) for one in usable}
    if len(distinct) < FEWEST:
        where = f" of {usable[0].domain}" if usable else ""
        return Abstained(reason=f"{len(distinct)} measurements{where}; a calibration needs {FEWEST}")
    return _Fit(usable, forward).outcome()


def _handful(observations: Sequence[Observation]) -> list[Observation]:
    """At most MOST, taken evenly from their order by layout, lengths and load."""
    ordered = sorted(observations, key=_order)
    if len(ordered) <= MOST:
        return ordered
    return [ordered[round(index * (len(ordered) - 1) / (MOST - 1))] for index in range(MOST)]


def _order(one: Observation) -> tuple[str, float, float, float]:
    work = one.loaded.workload
    return str(one.layouts), work.mean_input_tokens, work.mean_output_tokens, one.loaded.load


# The posterior


def _linear(forward: Forward, config: ServingConfig, loaded: LoadedWorkload) -> tuple[Floats, Floats]:
    """Logarithms of TTFT and TPOT without correction (2), and their slopes by the corrections (2 x 4)."""
    base = _logs(forward(Correction(), config, loaded))
    beside = [_logs(forward(correction, config, loaded)) for correction in NEXT_TO_NONE[1:]]
    slopes = [(logs - base) / step for logs, step in zip(beside, STEPS, strict=True)]
    return base, np.stack(slopes, axis=1)


def slopes_of(forward: Forward, config: ServingConfig, loaded: LoadedWorkload) -> Floats:
    """Of the logarithms of TTFT and TPOT by the four corrections, at none (2 x 4)."""
    return _linear(forward, config, loaded)[1]


NEXT_TO_NONE = (
    Correction(),
    *(Correction.of([step if place == index else 0.0 for place in range(4)]) for index, step in enumerate(STEPS)),
)


def _logs(latencies: Latencies) -> Floats:
    logs: Floats = np.log(np.array(astuple(latencies)))
    return logs


class _Fit:
    """A Gauss-Newton step, and REFINEMENTS more with the same slopes and the forward model run anew."""

    def __init__(self, observations: Sequence[Observation], forward: Forward) -> None:
        self.observations = observations
        self.forward = forward
        lines = [_linear(forward, one.config, one.loaded) for one in observations]
        self.base = np.stack([base for base, _ in lines])
        self.slopes = np.concatenate([slopes for _, slopes in lines])
        self.measured = np.stack([_logs(one.latencies) for one in observations])
        self.noise = np.array(NOISE)
        self.same_layout = np.array([[a.layouts == b.layouts for b in observations] for a in observations])
        self.precision = np.diag(1 / np.array(PRIOR_SD) ** 2)
        self.covariance: Floats = np.diag(np.array(PRIOR_SD) ** 2)

    def outcome(self) -> Outcome:
        domain = self.observations[0].domain
        mean = self._refined()
        if reason := self._unbelievable(mean):
            return Abstained(reason=f"{len(self.observations)} measurements of {domain}: {reason}")
        return Calibration(
            domain=domain,
            correction=Correction.of(mean),
            covariance=tuple(tuple(map(float, row)) for row in self.covariance),
            noise=(float(self.noise[0]), float(self.noise[1])),
            measurements=len(self.observations),
        )

    def _refined(self) -> Floats:
        mean = self._solved(self.measured - self.base)
        for _ in range(REFINEMENTS):
            mean = self._solved(self.measured - self._predicted(mean) + self._moved(mean))
        return mean

    def _predicted(self, mean: Floats) -> Floats:
        correction = Correction.of(mean)
        return np.stack([_logs(self.forward(correction, one.config, one.loaded)) for one in self.observations])

    def _moved(self, mean: Floats) -> Floats:
        moved: Floats = (self.slopes @ mean).reshape(-1, 2)
        return moved

    def _solved(self, wanted: Floats) -> Floats:
        """The mean for residuals (observations x 2) at no correction; sets covariance and noise."""
        weights, mean = np.ones_like(wanted), np.zeros(len(PRIOR_SD))
        self.noise = np.array(NOISE)
        for _ in range(REWEIGHTINGS):
            inverse = self._inverse_noise(weights)
            precision = self.precision + self.slopes.T @ inverse @ self.slopes
            self.covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
            mean = self.covariance @ self.slopes.T @ inverse @ wanted.reshape(-1)
            left = wanted - self._moved(mean)
            weights = (TAILS + 1) / (TAILS + (left / self.noise) ** 2)
            found = NOISE_WORTH * np.array(NOISE) ** 2 + (weights * left**2).sum(axis=0)
            self.noise = np.asarray(np.sqrt(found / (NOISE_WORTH + len(wanted))), dtype=np.float64)
        return mean

    def _inverse_noise(self, weights: Floats) -> Floats:
        """Inverse covariance of the residuals in the order observation, figure; doubtful ones count for less."""
        count = len(weights)
        correlation = (1 - ALIKE) * np.eye(count) + ALIKE * self.same_layout
        covariance = np.zeros((2 * count, 2 * count))
        for figure in (0, 1):
            scale = self.noise[figure] / np.sqrt(weights[:, figure])
            covariance[figure::2, figure::2] = correlation * np.outer(scale, scale)
        return np.asarray(np.linalg.inv(covariance), dtype=np.float64)

    def _unbelievable(self, mean: Floats) -> str:
        for what, value, limit in zip(("TTFT", "TPOT"), self.noise, LARGEST_NOISE, strict=True):
            if value > limit:
                return f"no correction explains them, {what} scatters by {math.expm1(value):.0%} around the best"
        if np.any(np.abs(mean) > FURTHEST * np.array(PRIOR_SD)):
            return f"they call for {Correction.of(mean)}, too much for step times that are slightly off"
        tpot = self.slopes[1::2]
        before = np.einsum("ij,j,ij->i", tpot, np.array(PRIOR_SD) ** 2, tpot)
        after = np.einsum("ij,jk,ik->i", tpot, self.covariance, tpot)
        left = float(np.median(np.sqrt(after / before)))
        if left > LEAST_LEARNED:
            return f"they say too little: {left:.0%} of the prior's uncertainty of TPOT is left"
        return ""


# For a search


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Step times for a search, corrected where its own measurements allow it, with the outcome by domain.

    `silicon` takes the place of the database everywhere (simulator, closed form, prior); where the outcome is an
    abstention, or nothing was measured, its step times are the database's own.
    """

    silicon: Silicon
    outcomes: Mapping[Domain, Outcome]

    def abstains(self, config: ServingConfig) -> Abstained | None:
        """Why the step times of this configuration are not corrected; None where they are."""
        domain = Domain.of(self.silicon.model, self.silicon.system, config)
        found = self.outcomes.get(domain)
        if isinstance(found, Calibration):
            return None
        if found is not None:
            return found
        measured = ", ".join(sorted(map(str, self.outcomes))) or "nothing"
        return Abstained(reason=f"no measurement of {domain}; measured: {measured}")


Finished = tuple[ServingConfig, LoadedWorkload, Measurement]


def calibrate_search(silicon: Silicon, finished: Iterable[Finished]) -> Calibrated:
    """From the finished measurements of a study (mean latencies of each); costs about 7 simulated runs for each.

    Where the simulator cannot serve one of a domain's configurations, the domain abstains.
    """
    groups: dict[Domain, list[Observation]] = defaultdict(list)
    for config, loaded, run in finished:
        domain = Domain.of(silicon.model, silicon.system, config)
        latencies = Latencies(ttft=run.ttft.mean, tpot=run.tpot.mean)
        groups[domain].append(Observation(domain=domain, config=config, loaded=loaded, latencies=latencies))
    forward = simulated(silicon)
    outcomes = {domain: _calibrated(group, forward) for domain, group in groups.items()}
    return Calibrated(silicon=_corrected(silicon, outcomes), outcomes=outcomes)


def _calibrated(observations: Sequence[Observation], forward: Forward) -> Outcome:
    try:
        return calibrate(observations, forward)
    except InfeasibleError as error:
        return Abstained(reason=f"one of the measured configurations cannot be predicted: {error}")


def _corrected(silicon: Silicon, outcomes: Mapping[Domain, Outcome]) -> Silicon:
    def correction(key: StepKey) -> Correction | None:
        found = outcomes.get(Domain.of(silicon.model, silicon.system, key))
        return found.correction if isinstance(found, Calibration) else None

    return CorrectedSilicon(silicon, correction)

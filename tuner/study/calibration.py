"""Measured levels of a study, as a calibration reads them, and what it made of them for one configuration."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from runners.measurement import Measurement
from runners.simulated.calibration import (
    Abstained,
    Calibrated,
    Calibration,
    Domain,
    Latencies,
    Spread,
    calibrate_search,
    simulated,
    slopes_of,
)
from runners.simulated.silicon import Silicon
from runners.simulated.simulated import Simulated
from runners.workload.workload import LoadedWorkload, Workload
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError, InputError
from tuner.scenario.scenario import Scenario
from tuner.study.finished_study import FinishedStudy

MEASURING = ("measured", "recorded")
"""Sources of levels that something real stands behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a study measured, and on what."""

    study: str
    scenario: Scenario
    levels: tuple[tuple[ServingConfig, LoadedWorkload, Measurement], ...]

    def counted(self) -> Counter[Domain]:
        """Levels by what a calibration holds for."""
        model, system = self.scenario.model, self.scenario.system
        return Counter(Domain.of(model, system, config) for config, _, _ in self.levels)

    def describes(self, silicon: Silicon) -> bool:
        """Whether model and system are the same; engine, release and format may still differ."""
        return (self.scenario.model, self.scenario.system) == (silicon.model, silicon.system)

    @property
    def longest(self) -> int:
        """Tokens of its longest request."""
        return self.scenario.workload.max_request_tokens


def measured_levels(finished: FinishedStudy) -> Measured:
    """Raises InputError for a study that measured nothing, or holds predictions."""
    levels = tuple(_levels(finished))
    if not levels and finished.predicted:
        raise InputError(
            f"{finished.path}: holds predictions, not measurements: there is nothing to calibrate with. Its runner is "
            f"{finished.experiment.runner}; runners that measure or replay: served, recorded"
        )
    if not levels:
        raise InputError(f"{finished.path}: none of its trials was measured: there is nothing to calibrate with")
    return Measured(study=finished.name, scenario=finished.scenario, levels=levels)


def _levels(finished: FinishedStudy) -> Iterator[tuple[ServingConfig, LoadedWorkload, Measurement]]:
    """Without loads that were not kept up with or failed: what was answered there is not what was asked."""
    for trial in finished.trials:
        for level in trial.levels if trial.config else ():
            if level.source in MEASURING and level.kept_up and not level.failed_requests:
                assert trial.config is not None
                yield trial.config, _as_run(finished.scenario.workload, level).at(level.load), level


def _as_run(workload: Workload, level: Measurement) -> Workload:
    """With as many requests as were really measured, and the standing start of published benchmark clients."""
    if workload.trace is not None:
        return workload
    return replace(
        workload,
        requests=level.requests,
        standing_start=workload.standing_start or (level.source == "recorded" and workload.shape == "closed_loop"),
    )


def calibrated_by(measured: Measured, silicon: Silicon) -> Calibrated:
    """The database corrected where the study measured the same; unchanged elsewhere."""
    if not measured.describes(silicon):
        return calibrate_search(silicon, ())
    if measured.longest > silicon.longest_context:
        silicon = Silicon(silicon.model, silicon.system, longest_context=measured.longest)
    predictable = {config for config, _, _ in measured.levels if _can_predict(silicon, config)}
    return calibrate_search(silicon, (level for level in measured.levels if level[0] in predictable))


def _can_predict(silicon: Silicon, config: ServingConfig) -> bool:
    """Without this one configuration a domain can still be calibrated."""
    with suppress(InfeasibleError), Simulated(silicon).serve(config):
        return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCalibration:
    """What a calibration says of one configuration at one load: the correction and both intervals, or why none.

    `measured` counts what the study measured of its domain. A calibration reads no more than a handful of it, and
    nothing of configurations that cannot be predicted.
    """

    study: str
    found: Calibration | Abstained
    measured: int
    ttft: Spread | None = None
    tpot: Spread | None = None


def applied(
    measured: Measured,
    calibrated: Calibrated,
    silicon: Silicon,
    config: ServingConfig,
    loaded: LoadedWorkload,
    level: Measurement,
) -> AppliedCalibration:
    """`silicon` is the uncorrected database, `level` the run with the corrected one."""
    domain = Domain.of(silicon.model, silicon.system, config)
    known = measured.counted()
    found = calibrated.outcomes.get(domain)
    if not isinstance(found, Calibration):
        others = f"no measurement of {domain} that can be predicted; measured: {', '.join(map(str, known))}"
        return AppliedCalibration(study=measured.study, found=found or Abstained(reason=others), measured=known[domain])
    slopes = slopes_of(simulated(silicon), config, loaded)
    ttft, tpot = found.spread(Latencies(ttft=level.ttft.mean, tpot=level.tpot.mean), slopes)
    return AppliedCalibration(study=measured.study, found=found, measured=known[domain], ttft=ttft, tpot=tpot)

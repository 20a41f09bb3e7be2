"""Replayed: what a search over recorded rows came to, held against all that they hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runners.recorded.recorded import as_measurement
from runners.recorded.recording import Recording, served
from tuner.scenario.recorded import configurations
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A search over recorded rows, against all that they hold.

    `seconds` and `gpu_seconds` are what the measured runs took (start-up of the engines, which is not recorded,
    left out); `all_gpu_seconds` is what all rows took. `best` is the cheapest row that meets the SLA, at `dollars`;
    `found` is the answer's own row, `at_the_top` where its configuration was measured at no higher load.
    """

    configs: int
    tried: int
    seconds: float
    gpu_seconds: float
    all_gpu_seconds: float
    dollars: float | None
    best: Recording | None
    found: Recording | None
    at_the_top: bool


def replayed(scenario: Scenario, rows: Sequence[Recording], trials: Sequence[Trial], chosen: Trial | None) -> Replayed:
    """`chosen` is the trial that was recommended; `rows` are those that could be searched."""
    measured = [trial for trial in trials if trial.ending == "measured"]
    levels = [level for trial in measured for level in trial.levels]
    found = row_of(chosen, rows) if chosen else None
    best = min(
        (row for row in rows if scenario.sla.met_by(as_measurement(row))),
        key=lambda row: scenario.usd_per_million(as_measurement(row)),
        default=None,
    )
    return Replayed(
        configs=len(configurations(rows)),
        tried=len(measured),
        seconds=sum(level.duration_s for level in levels),
        gpu_seconds=sum(level.duration_s * level.gpus for level in levels),
        all_gpu_seconds=sum(row.seconds * row.config.gpus for row in rows),
        dollars=scenario.usd_per_million(as_measurement(best)) if best else None,
        best=best,
        found=found,
        at_the_top=found is not None and found.concurrency == _highest(rows, found),
    )


def _highest(rows: Iterable[Recording], like: Recording) -> int:
    return max(row.concurrency for row in rows if served(row.config) == served(like.config))


def row_of(trial: Trial, rows: Iterable[Recording]) -> Recording | None:
    """The row that a trial's measurement is a replay of."""
    if trial.config is None or trial.ending != "measured":
        return None
    asked = served(trial.config), trial.measurement.load
    return next((row for row in rows if (served(row.config), row.concurrency) == asked), None)

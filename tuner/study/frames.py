"""Trials and load levels as pandas frames, one row each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from runners.measurement import METRICS, PERCENTILES, Measurement
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, object]


def trials_frame(scenario: Scenario, trials: Sequence[Trial]) -> "pd.DataFrame":
    """A row for each trial, indexed by its number.

    Columns: ending, cause, detail, seconds (that the trial took), exact, config (in short), the knobs
    (`layout.tensor`, ...) and, where it was measured, the columns of `levels_frame` at the load that counts.
    """
    return _frame((_trial_row(scenario, trial) for trial in trials), ["trial"])


def levels_frame(scenario: Scenario, trials: Sequence[Trial]) -> "pd.DataFrame":
    """A row for each load that a trial was measured at, indexed by trial and step (in the order measured).

    Columns: chosen (the load that counts), sla_met, load, gpus (held), gpus_left_over (charged too), $/M and tokens/s
    as in Cost, request_rate (requests/s), latencies in milliseconds (`ttft_ms_mean`, `tpot_ms_p99`, ...), kept_up,
    preemptions, kv_cache_peak (share), source, not_had (what could not be measured).
    """
    return _frame((row for trial in trials for row in _level_rows(scenario, trial)), ["trial", "step"])


def _frame(rows: Iterator[Row], index: list[str]) -> "pd.DataFrame":
    import pandas as pd

    listed = list(rows)
    return pd.DataFrame(listed, columns=None if listed else index).set_index(index)


def _trial_row(scenario: Scenario, trial: Trial) -> Row:
    row: Row = {
        "trial": trial.number,
        "ending": trial.ending,
        "cause": trial.cause,
        "detail": trial.detail,
        "seconds": trial.seconds,
        "exact": trial.exact,
        "config": str(trial.config) if trial.config else "",
    }
    row |= flatten(trial.config) if trial.config else {}
    return row | (_level_row(scenario, trial.measurement) if trial.ending == "measured" else {})


def _level_rows(scenario: Scenario, trial: Trial) -> Iterator[Row]:
    for step, level in enumerate(trial.levels):
        where: Row = {"trial": trial.number, "step": step, "config": str(trial.config), "chosen": step == trial.chosen}
        yield where | _level_row(scenario, level)


def _level_row(scenario: Scenario, level: Measurement) -> Row:
    row: Row = {"sla_met": scenario.sla.met_by(level), "load": level.load, "gpus": level.gpus}
    row["gpus_left_over"] = scenario.left_over(level.gpus)
    row |= asdict(scenario.cost(level))
    row["request_rate"] = level.request_rate
    for metric in METRICS:
        spread = level.latency(metric)
        row[f"{metric}_ms_mean"] = spread.mean * 1000
        row |= {f"{metric}_ms_p{p:g}": spread.at(p) * 1000 for p in PERCENTILES}
    return row | {
        "kept_up": level.kept_up,
        "failed_requests": level.failed_requests,
        "preemptions": level.preemptions,
        "kv_cache_peak": level.kv_cache_peak,
        "source": level.source,
        "not_had": "; ".join(level.not_had),
    }

"""Stored: what an Optuna study holds of our trials, so that its own plots, samplers and dashboards can use them."""

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.scenario.scenario import Scenario
from tuner.search.trial import RECORD, Trial, trial_from_json, trial_to_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Asked
    from optuna.trial import FrozenTrial

REPEATS = "repeats"
"""User attribute of an Optuna trial that was not served: the number of the finished one with the same parameters."""

Key = frozenset[tuple[str, Any]]


def key_of(params: Mapping[str, Any]) -> Key:
    """What two choices of the same parameters have in common."""
    return frozenset(params.items())


def finished_trials(study: "Study") -> list[Trial]:
    """The trials of a study that ended by themselves, in order."""
    records = (trial.user_attrs.get(RECORD) for trial in study.get_trials(deepcopy=False))
    return [trial_from_json(record) for record in records if record]


def finished_by_params(study: "Study") -> "dict[Key, FrozenTrial]":
    """The same, as Optuna has them, by their parameters."""
    finished = (trial for trial in study.get_trials(deepcopy=False) if RECORD in trial.user_attrs)
    return {key_of(trial.params): trial for trial in finished}


def finish(study: "Study", asked: "Asked", trial: Trial, scenario: Scenario) -> "FrozenTrial":
    """Ends a trial as it ended: constraints and figures first, then its record, which makes it one of ours."""
    if trial.ending == "measured":
        for name, excess in scenario.sla.excess(trial.measurement).items():
            asked.set_constraint(name, excess)
        for name, value in figures(trial, scenario).items():
            asked.set_user_attr(name, value)
    asked.set_user_attr(RECORD, trial_to_json(trial))
    return _tell(study, asked.number, trial, scenario)


def repeat(study: "Study", asked: "Asked", earlier: "FrozenTrial") -> None:
    """Ends a trial that proposes the parameters of a finished one as that one ended.

    It has the other's value, constraints and figures: whoever learns from them, or plots them, sees the same again. It
    was not served and is none of ours: REPEATS names the other, and there is no record.
    """
    for name, excess in earlier.constraints.items():
        asked.set_constraint(name, excess)
    for name, value in earlier.user_attrs.items():
        if name != RECORD:
            asked.set_user_attr(name, value)
    asked.set_user_attr(REPEATS, earlier.number)
    study.tell(asked.number, earlier.value, state=earlier.state)


def settle_interrupted(study: "Study", scenario: Scenario) -> None:
    """Ends the trials that an interrupted process left running: as they ended if they had, else as failed.

    A failed trial without a record is none of ours, so what it proposed may be proposed again.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if RECORD in trial.user_attrs:
            _tell(study, trial.number, trial_from_json(trial.user_attrs[RECORD]), scenario)
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def name_objective(study: "Study", scenario: Scenario) -> None:
    """Has Optuna's plots and frames call the value by the objective's name."""
    if study.metric_names != [scenario.objective]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, as Optuna says of names
            study.set_metric_names([scenario.objective])


def figures(trial: Trial, scenario: Scenario) -> dict[str, float]:
    """What Optuna's plots can show of a measured trial beside its cost: `target=lambda t: t.user_attrs["load"]`.

    Throughput in tokens/s, latencies in milliseconds under the keys of SLOs: those of the SLA, and medians. What is not
    finite is left out.
    """
    level, costs = trial.measurement, scenario.cost(trial.measurement)
    found = {
        "load": level.load,
        "output_tokens_per_s_per_gpu": costs.output_tokens_per_s_per_gpu,
        "tokens_per_s_per_user": costs.tokens_per_s_per_user,
        "ttft_ms_p50": level.ttft.at(50) * 1000,
        "tpot_ms_p50": level.tpot.at(50) * 1000,
        **{slo.key: slo.observed(level) * 1000 for slo in scenario.sla.slos},
        "probability_sla_met": scenario.sla.probability_met(level),
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _tell(study: "Study", number: int, trial: Trial, scenario: Scenario) -> "FrozenTrial":
    from optuna.trial import TrialState

    if trial.ending == "measured":
        return study.tell(number, scenario.usd_per_million(trial.measurement))
    return study.tell(number, state=TrialState.PRUNED if trial.ending == "infeasible" else TrialState.FAIL)

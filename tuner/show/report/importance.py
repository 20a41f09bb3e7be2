"""Knob importance: how much of the difference in cost between the trials each knob explains, by Optuna."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.study.finished_study import FinishedStudy

if TYPE_CHECKING:
    import optuna

FEWEST_TRIALS = 8
MOST_TRIALS = 1000
"""The evaluators take the latest so many trials: their time grows with them."""

TREES, DEPTH = 32, 6
"""Of fANOVA's forest. Optuna's own, 64 trees of any depth, takes 10 s on 300 trials; this takes under 0.5 s and puts
the shares of a made-up study of known effects within 0.03 of it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Shares by knob: of the variance of log cost (fANOVA), and of what tells the best tenth from the rest (PED-ANOVA).

    Both sum to 1. `trials` were compared; knobs that had one value only are left out.
    """

    trials: int
    explained: Mapping[str, float]
    among_the_best: Mapping[str, float]


def importance(finished: FinishedStudy) -> Importance | None:
    """None where fewer than FEWEST_TRIALS meet the SLA, or all cost the same.

    Only trials that meet the SLA are compared: what a broken SLO costs says nothing.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    study = _comparable(finished)
    if study is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, as Optuna says of PED-ANOVA
        explained = get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0)
        )
        best = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    varied = {name for name, value in explained.items() if math.isfinite(value) and _values(study, name) > 1}
    if not varied:
        return None
    return Importance(
        trials=len(study.get_trials(deepcopy=False)),
        explained={name: float(value) for name, value in explained.items() if name in varied},
        among_the_best={name: float(best.get(name, 0.0)) for name in varied},
    )


def _comparable(finished: FinishedStudy) -> "optuna.Study | None":
    """A study in memory of the trials that meet the SLA, their value the logarithm of the objective."""
    import optuna
    from optuna.trial import TrialState, create_trial

    by_number = {trial.number: trial for trial in finished.trials if trial.ending == "measured"}
    met = {number: trial for number, trial in by_number.items() if finished.scenario.sla.met_by(trial.measurement)}
    complete = finished.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    chosen = [trial for trial in complete if trial.number in met and trial.value][-MOST_TRIALS:]
    if len(chosen) < FEWEST_TRIALS or len({trial.value for trial in chosen}) == 1:
        return None
    study = optuna.create_study()
    for trial in chosen:
        assert trial.value is not None
        study.add_trial(
            create_trial(value=math.log(trial.value), params=trial.params, distributions=trial.distributions)
        )
    return study


def _values(study: "optuna.Study", name: str) -> int:
    return len({trial.params.get(name) for trial in study.get_trials(deepcopy=False)})

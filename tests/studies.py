"""Studies as `servetune tune` leaves them behind, whose trials are known."""

from dataclasses import replace
from pathlib import Path

import optuna

from tests.scenarios import CONFIG, answer_of, level, measured
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.ranking import Ranking
from tuner.search.session import Session
from tuner.search.trial import RECORD, Trial, trial_to_json
from tuner.study.attributes import keep_experiment, keep_summary
from tuner.study.journal import open_study

CHAT = "gpt-oss-120b-b200-chat"
FAIL = optuna.trial.TrialState.FAIL
KEPT = measured(0, level(80_000), level(120_000, tpot_ms=25))
CHEAPER = measured(1, level(100_000))
INFEASIBLE = Trial(number=2, ending="infeasible", config=CONFIG, cause="memory", detail="too large")
FAILED = Trial(number=3, ending="failed", config=CONFIG, cause="died", detail="exit 1")

# On 8 GPUs; TTFT p99 <= 1000 ms and TPOT p99 <= 20 ms are met at the first load.
WINNER = measured(0, level(100_000, tpot_ms=19.8), level(125_000, tpot_ms=25), level(50_000, tpot_ms=9))
OTHER = measured(1, level(80_000, tpot_ms=15), level(160_000, tpot_ms=10, ttft_ms=3000))


def study_of(folder: Path, *trials: Trial, experiment: str = CHAT, summary: bool = True, file: bool = True) -> Path:
    """A journal as `servetune tune` leaves it behind."""
    session = Session(experiment=read_experiment(find_experiment(experiment)))
    with open_study(folder, session.study_name, experiment=session.asked) as study:
        if file:
            keep_experiment(study, session.experiment)
        for trial in trials:
            asked = study.ask()
            asked.set_user_attr(RECORD, trial_to_json(replace(trial, number=asked.number)))
            study.tell(asked, 1.0 if trial.ending == "measured" else None, state=None if trial.levels else FAIL)
        if summary:
            ranking = Ranking(candidates=(), excluded={"GPUs": 7})
            answer = replace(answer_of(), trials=trials, ranking=ranking, baseline=KEPT, frontier=((CONFIG, level(9)),))
            keep_summary(study, answer, interrupted=False)
    return folder / f"{session.study_name}.journal"

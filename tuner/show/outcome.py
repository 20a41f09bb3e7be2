"""What a search came to as JSON: the document of `servetune report --format json`, and where everything is."""

from typing import Any

from runners.served.shell import how_to_start
from tuner.search.session import Session
from tuner.show.report.render import figures
from tuner.show.report.report import Report
from tuner.show.terminal import places
from tuner.study.finished_study import open_finished
from tuner.study.outcome import Outcome, Where


def outcome_document(session: Session, outcome: Outcome, where: Where) -> dict[str, Any]:
    """Of a search that measured nothing, how its trials ended."""
    search = {"search": _search(outcome, where)}
    answer = outcome.answer
    best = answer.best
    if best is None or best.config is None:
        return _unmeasured(session, outcome, where) | search
    document = figures(Report(finished=open_finished(where.studies, where.study)))
    start = how_to_start(session.scenario.model, best.config, session.scenario.installation)
    return document | {"start": start} | search


def _unmeasured(session: Session, outcome: Outcome, where: Where) -> dict[str, Any]:
    answer = outcome.answer
    return {
        "study": where.study,
        "experiment": session.experiment.name,
        "verdict": {"in_words": "No configuration could be served.", "meets_sla": False},
        "winner": None,
        "ended": dict(answer.ended()),
        "excluded": dict(answer.excluded()),
    }


def _search(outcome: Outcome, where: Where) -> dict[str, Any]:
    found = places(outcome, where)
    return {
        "new_trials": outcome.tried,
        "interrupted": outcome.interrupted,
        "broken": outcome.broken,
        "problem": outcome.problem,
        "study_file": found["Study"],
        "mlflow": {"runs": found["MLflow runs"], "open": found["Open them"]} if where.track else None,
    }

"""Champions, retunes and what is due as plain data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tuner.retune.champion import Audited, Champion
from tuner.retune.job import Due, Ended, check_code
from tuner.retune.retune import Retuned
from tuner.scenario.scenario import Scenario
from tuner.search.session import Session
from tuner.search.trial import Trial
from tuner.show.figures import config_figures, level_figures


def champion_document(champion: Champion, history: Sequence[Audited]) -> dict[str, Any]:
    """What serves, what it costs, and how it came there."""
    scenario = Session(experiment=champion.asked_experiment).scenario
    return {
        "experiment": champion.experiment,
        "version": champion.version,
        "replaces": champion.replaces or None,
        **_trial(scenario, champion.trial),
        "machine": dict(champion.machine),
        "study": champion.study,
        "run_id": champion.run_id,
        "history": [asdict(move) for move in history],
    }


def due_document(due: Due) -> dict[str, Any]:
    """What a retune would begin with."""
    champion = due.champion
    return {
        "experiment": due.experiment.name,
        "champion": {"version": champion.version, "config": config_figures(champion.config)},
        "installed": due.known.installed,
        "indexed": list(due.known.indexed),
        "problem": due.known.problem,
        "release_to_judge": str(due.to) if due.to else None,
        "note": due.note,
        "changes": [str(change) for change in due.changes],
        "due": due.anything,
        "exit_code": check_code(due),
    }


def ended_document(ended: Ended) -> dict[str, Any]:
    """The verdict, and the evidence where something was measured."""
    document: dict[str, Any] = {
        "experiment": ended.experiment,
        "outcome": ended.outcome,
        "in_words": ended.line,
        "exit_code": ended.code,
    }
    return document | (_evidence(ended.retuned) if ended.retuned else {})


def _evidence(found: Retuned) -> dict[str, Any]:
    sides = {"before": found.before, "after": found.after, "challenger": found.challenger}
    return {
        "decided": found.verdict.decided,
        "effect": asdict(found.verdict.effect),
        "usd_per_million": dict(zip(("estimate", "low", "high"), found.per_million, strict=True)),
        "usd_per_month": dict(zip(("estimate", "low", "high"), found.per_month, strict=True)),
        "evidence": list(found.verdict.evidence),
        "changes": [str(change) for change in found.changes],
        "settings": list(found.settings),
        "releases": {"before": str(found.sides.before), "after": str(found.sides.after)},
        **{name: _trial(found.scenario, trial) if trial else None for name, trial in sides.items()},
        "study": found.study,
        "seconds": found.seconds,
    }


def _trial(scenario: Scenario, trial: Trial) -> dict[str, Any]:
    config = config_figures(trial.config) if trial.config else None
    return {"trial": trial.number, "config": config, **level_figures(scenario, trial.measurement)}

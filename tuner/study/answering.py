"""Answering: the trials of a search as its answer, what it is compared with measured for it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from runners.measurement import Measurement
from runners.runner import RunFailedError
from search_spaces.config import Engine, ServingConfig
from search_spaces.default import default_configs
from search_spaces.errors import InfeasibleError, InputError
from tuner.search.ranking import Ranking
from tuner.search.search import best_trial
from tuner.search.session import PREDICTING, Session
from tuner.search.trial import Trial
from tuner.study.answer import Answer

FRONTIER_POINTS = 10

CURVE = (0.1, 0.25, 0.5, 0.75, 1.25, 2.0)
"""Loads at which a predicted winner is run to show its latency, in units of the one that counts."""


def answer_of(session: Session, trials: Sequence[Trial], ranking: Ranking) -> Answer:
    """The answer of finished trials, with the default configuration and the predicted frontier."""
    best = best_trial(session.scenario, trials)
    baseline = None
    # Untuned configurations were recorded at low loads only, if at all: comparing with those would flatter the answer.
    if best is not None and best.config is not None and not session.recorded:
        with suppress(InputError):
            baseline = _baseline(session, best.config.engine, trials)
    return Answer(
        scenario=session.scenario,
        trials=trials,
        ranking=ranking,
        baseline=baseline,
        frontier=[] if session.experiment.is_served else list(_frontier(session, ranking)),
    )


def _baseline(session: Session, engine: Engine, trials: Sequence[Trial]) -> Trial | None:
    """The untuned engine: measured for it, or where that means real GPUs only if the search tried it."""
    if not session.experiment.is_served:
        return session.default_trial(engine)
    sizes = default_configs(session.scenario.model, engine, session.scenario.gpus)
    untuned = {config for size in sizes for config in size}
    return best_trial(session.scenario, [trial for trial in trials if trial.config in untuned])


def _frontier(session: Session, ranking: Ranking) -> Iterator[tuple[ServingConfig, Measurement]]:
    """The predicted frontier, each point run once."""
    workload = session.scenario.workload
    for config, point in session.prior.frontier(ranking, most=FRONTIER_POINTS):
        load = point.load(workload)
        with suppress(InfeasibleError, RunFailedError), session.runner.serve(config) as measure:
            yield config, measure(workload.at(load))


def curve_of(session: Session, best: Trial | None) -> Iterator[Measurement]:
    """The best configuration at loads far from its capacity: predicted ones only, which cost no GPU time."""
    if best is None or best.config is None or session.experiment.runner not in PREDICTING:
        return
    loads = session.prior.load_range(best.config)
    wanted = {loads.snap(best.measurement.load * share) for share in CURVE}
    with suppress(InfeasibleError, RunFailedError), session.runner.serve(best.config) as measure:
        for load in sorted(wanted - {level.load for level in best.levels}):
            yield measure(session.scenario.workload.at(load))

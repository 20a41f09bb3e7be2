"""A session searched with progress on a terminal, kept as a study and MLflow runs, and shown."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console

from runners.measurement import Measurement
from runners.runner import RunFailedError
from runners.served.shell import how_to_start
from search_spaces.config import Engine, ServingConfig
from search_spaces.default import default_configs
from search_spaces.errors import InfeasibleError, InputError
from tuner.search.ranking import Ranking
from tuner.search.replayed import replayed
from tuner.search.samplers import sampler_of
from tuner.search.search import Search, best_trial
from tuner.search.session import PREDICTING, Session, budget_of
from tuner.search.tracker import Untracked
from tuner.search.trial import Trial
from tuner.show.markdown import to_markdown
from tuner.show.progress import SearchProgress, searching_bar
from tuner.show.terminal import show_answer, show_experiment, show_recorded, show_replayed
from tuner.study.answer import Answer
from tuner.study.attributes import keep_experiment, keep_summary
from tuner.study.journal import open_study
from tuner.study.outcome import Outcome, Where

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from tuner.tracking.mlflow_tracker import MlflowTracker

FRONTIER_POINTS = 10
CURVE = (0.1, 0.25, 0.5, 0.75, 1.25, 2.0)
"""Loads at which a predicted winner is run to show its latency, in units of the one that counts."""


def run(
    session: Session,
    where: Where,
    *,
    trials: int | None,
    console: Console,
    bars: Console | None = None,
    sampler: "BaseSampler | None" = None,
    on_trial: Callable[[Trial], None] = lambda _trial: None,
) -> Outcome:
    """Searches with a progress bar, shows the answer, and writes what is left to MLflow.

    `bars` is where progress is shown, if not on `console`; `sampler` proposes in place of the experiment's; `on_trial`
    is called with every new trial as it ends. Raises InputError.
    """
    bars = bars or console
    make_sampler = (lambda *_: sampler) if sampler is not None else sampler_of(session.experiment)
    show_experiment(console, session.scenario)
    if session.recorded:
        show_recorded(console, session.scenario, session.recorded)
    ranking = _rank(session, bars)
    with (
        open_study(where.studies, where.study, experiment=session.asked) as study,
        _mlflow(session, where, bars) as tracker,
    ):
        keep_experiment(study, session.experiment)
        with searching_bar(bars) as bar:
            budget = budget_of(session.experiment, trials)
            search = Search(
                prior=session.prior,
                runner=session.runner,
                study=study,
                sampler=make_sampler(session.prior, ranking, study),
                tracker=tracker or Untracked(),
                budget=budget,
                progress=SearchProgress(bar, session.scenario, budget),
                finished=on_trial,
            )
            search.run()
            answer = _answer(session, search.trials(), ranking)
            keep_summary(study, answer, list(_curve(session, answer.best)), interrupted=search.interrupted)
        if tracker:
            best = answer.best
            tracker.interrupted = search.interrupted
            files = {}
            if best is not None and best.config is not None:
                files["commands.txt"] = how_to_start(session.scenario.model, best.config, session.scenario.installation)
            tracker.summarize(best.number if best else None, to_markdown(answer), files)
        show_answer(console, answer)
        if session.recorded:
            show_replayed(console, answer, replayed(session.scenario, session.recorded, answer.trials, answer.best))
    return Outcome(
        answer=answer,
        interrupted=search.interrupted,
        tried=search.tried,
        broken=search.broken,
        problem=tracker.problem if tracker else None,
    )


def _rank(session: Session, console: Console) -> Ranking:
    with console.status("Reading kernel times and ranking every combination"):
        return session.rank()


def _answer(session: Session, trials: Sequence[Trial], ranking: Ranking) -> Answer:
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


def _curve(session: Session, best: Trial | None) -> Iterator[Measurement]:
    """The best configuration at loads far from its capacity: predicted ones only, which cost no GPU time."""
    if best is None or best.config is None or session.experiment.runner not in PREDICTING:
        return
    loads = session.prior.load_range(best.config)
    wanted = {loads.snap(best.measurement.load * share) for share in CURVE}
    with suppress(InfeasibleError, RunFailedError), session.runner.serve(best.config) as measure:
        for load in sorted(wanted - {level.load for level in best.levels}):
            yield measure(session.scenario.workload.at(load))


@contextmanager
def _mlflow(session: Session, where: Where, console: Console) -> "Iterator[MlflowTracker | None]":
    if not where.track:
        yield None
        return
    from tuner.tracking.mlflow_tracker import MlflowTracker

    path = session.experiment.path
    with searching_bar(console) as bar:
        task = bar.add_task("Writing to MLflow", total=None, visible=False, best="", left="")
        with MlflowTracker(
            session.scenario,
            study=where.study,
            tracking_uri=where.tracking_uri,
            experiment_text=session.experiment.text,
            experiment_path=path,
            on_drain=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        ) as tracker:
            yield tracker

"""A session searched with progress on a terminal, kept as a study and MLflow runs, and shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from runners.served.shell import how_to_start
from tuner.search.ranking import Ranking
from tuner.search.replayed import replayed
from tuner.search.samplers import sampler_of
from tuner.search.search import Search
from tuner.search.session import Session, budget_of
from tuner.search.tracker import Untracked
from tuner.search.trial import Trial
from tuner.show.markdown import to_markdown
from tuner.show.progress import SearchProgress, searching_bar
from tuner.show.terminal import show_answer, show_experiment, show_recorded, show_replayed
from tuner.study.answer import Answer
from tuner.study.answering import answer_of, curve_of
from tuner.study.attributes import keep_experiment, keep_summary
from tuner.study.journal import open_study
from tuner.study.outcome import Outcome, Where

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from tuner.tracking.mlflow_tracker import MlflowTracker


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
            answer = answer_of(session, search.trials(), ranking)
            keep_summary(study, answer, list(curve_of(session, answer.best)), interrupted=search.interrupted)
        if tracker:
            tracker.interrupted = search.interrupted
            _summarize(tracker, answer)
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


def _summarize(tracker: "MlflowTracker", answer: Answer) -> None:
    """Writes the answer to MLflow, with the commands that start it."""
    best, scenario = answer.best, answer.scenario
    files = {}
    if best is not None and best.config is not None:
        files["commands.txt"] = how_to_start(scenario.model, best.config, scenario.installation)
    tracker.summarize(best.number if best else None, to_markdown(answer), files)


def _rank(session: Session, console: Console) -> Ranking:
    with console.status("Reading kernel times and ranking every combination"):
        return session.rank()


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

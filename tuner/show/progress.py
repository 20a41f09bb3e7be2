"""Progress of a search on a terminal: how far it is, how long it may still take, and the best so far."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from tuner.scenario.amounts import dollars
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import BACKLOG
from tuner.search.search import Budget, objective
from tuner.search.trial import Trial

MINUTE, HOUR = 60.0, 3600.0


def searching_bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[best]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console,
        expand=True,
        transient=True,
    )


@contextmanager
def comparing(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A bar for rows that are predicted; what it yields is called once for each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Predicting measured runs", total=total)
        yield lambda: bar.advance(task)


class SearchProgress:
    """Shows finished trials, the time that the rest may take, and the best cost so far on a progress bar."""

    def __init__(
        self, bar: Progress, scenario: Scenario, budget: Budget, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bar = bar
        self._scenario = scenario
        self._budget = budget
        self._clock = clock
        self._began = clock()
        self._had: int | None = None
        self._task = bar.add_task("Searching", total=budget.trials, best="", left="")

    def __call__(self, done: int, best: Trial | None) -> None:
        if self._had is None:
            self._had = done
        shown = ""
        if best is not None:
            figure = dollars(objective(self._scenario, best))
            standing = "best" if self._scenario.sla.met_by(best.measurement) else "nearest, SLA missed"
            shown = f"{standing} {figure} {best.config}"
        seconds = seconds_left(self._budget, had=self._had, done=done, elapsed=self._clock() - self._began)
        left = f"about {duration(seconds)} left" if seconds else ""
        self._bar.update(self._task, completed=done, best=shown, left=left)


def seconds_left(budget: Budget, *, had: int, done: int, elapsed: float) -> float | None:
    """What the trials that the budget allows may still take at the pace of those so far, or the clock allows.

    `had` trials were there before. None while nothing is known.
    """
    by_clock = max(budget.wall_clock_s - elapsed, 0.0)
    new = done - had
    by_trials = max(budget.trials - done, 0) * elapsed / new if new else float("inf")
    found = min(by_clock, by_trials)
    return None if found == float("inf") else found


def duration(seconds: float) -> str:
    """Seconds below a minute and a half, then minutes, then hours."""
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


def trial_line(scenario: Scenario, trial: Trial) -> str:
    """A finished trial in a line: number, ending or cause, cost, SLO that it misses, configuration."""
    config = f": {trial.config}" if trial.config else ""
    if trial.ending != "measured":
        return f"trial {trial.number} {trial.ending}, {trial.cause}: {trial.detail}{config}"
    figure = f"{'' if trial.exact else '<= '}{dollars(objective(scenario, trial))}"
    return f"trial {trial.number} measured {figure}, {_slo(scenario, trial)}{config}"


def _slo(scenario: Scenario, trial: Trial) -> str:
    excess = scenario.sla.excess(trial.measurement)
    worst = max(excess, key=lambda key: excess[key])
    if excess[worst] <= 0:
        return "meets the SLA"
    return "does not keep up with its load" if worst == BACKLOG else f"misses {worst} by {excess[worst]:.0%}"

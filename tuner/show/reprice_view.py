"""How a repriced study is shown."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search_spaces.wording import in_words
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.search.search import objective
from tuner.show.figures import config_figures, level_figures
from tuner.study.reprice import Repriced, Rescored, percentile_is_mean

SHOWN = 5


def show_repriced(console: Console, repriced: Repriced) -> None:
    """The verdict, the best trials, and what the measurements leave open."""
    scenario = repriced.scenario
    price = scenario.price
    console.print(f"{repriced.finished.name}: {scenario.sla}", markup=False)
    console.print(f"${price.usd_per_gpu_hour:g} a GPU-hour, {price.source}", markup=False)
    console.print(verdict(repriced), markup=False, soft_wrap=True)
    console.print(_trials(repriced))
    for line in open_experiments(repriced):
        console.print(f"- {line}", markup=False, soft_wrap=True)
    for slo in scenario.sla.slos:
        if percentile_is_mean(repriced, slo):
            console.print(f"- {slo.key} was not recorded: the mean stands for it", markup=False)


def verdict(repriced: Repriced) -> str:
    """One sentence."""
    best = repriced.best
    if best is None:
        return "No load that was measured meets the SLA."
    scenario = repriced.scenario
    was = repriced.finished.best
    assert best.trial.config is not None
    assert was is not None
    figure = f"{dollars(best.cost)} {OBJECTIVE_TITLES[scenario.objective]}"
    before = dollars(objective(repriced.finished.scenario, was))
    same = "still the cheapest" if best.trial.number == was.number else f"no longer trial {was.number}"
    most = "" if best.exact else "at most "
    rest = scenario.left_over_in_words(best.trial.config.gpus)
    said = f"{most}{figure} (was {before}): trial {best.trial.number}, {same}. {in_words(best.trial.config)}."
    return f"{said} {rest}" if rest else said


def document(repriced: Repriced) -> dict[str, Any]:
    """The same as plain data, every measured trial with it."""
    scenario, price = repriced.scenario, repriced.scenario.price
    return {
        "study": repriced.finished.name,
        "verdict": verdict(repriced),
        "sla": str(scenario.sla),
        "price": {"usd_per_gpu_hour": price.usd_per_gpu_hour, "source": price.source},
        "objective": scenario.objective,
        "suffices": repriced.suffices,
        "open_experiments": open_experiments(repriced),
        "trials": [
            {
                "trial": one.trial.number,
                "config": config_figures(one.trial.config) if one.trial.config else None,
                "sla_met": one.level is not None,
                "usd_per_million": one.cost,
                "usd_per_million_at_least": one.least,
                "exact": one.exact,
                "gap": one.gap,
                "figures": level_figures(scenario, one.level) if one.level else None,
            }
            for one in repriced.rescored
        ],
    }


def open_experiments(repriced: Repriced) -> list[str]:
    """What the measurements do not say."""
    if repriced.suffices:
        return ["What was measured suffices: no other trial can be cheaper. Configurations that were not tried may be."]
    lines = []
    best = repriced.best
    if best is not None and not best.exact:
        lines.append(f"Trial {best.trial.number} may cost less: {best.gap}.")
    rivals = repriced.rivals
    lines += [
        f"Trial {one.trial.number} ({one.trial.config}) may be cheaper, {_least(one)}: {one.gap}."
        for one in rivals[:SHOWN]
    ]
    if len(rivals) > SHOWN:
        lines.append(f"So may {len(rivals) - SHOWN} more.")
    lines.append("To know, put these terms into the experiment and tune it: that is a study of its own.")
    return lines


def table(found: Sequence[Repriced]) -> Table:
    """One line for each study."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("study", "was", "is", "trial", "configuration", "known"):
        shown.add_column(name)
    for one in found:
        was, best = one.finished.best, one.best
        before = dollars(objective(one.finished.scenario, was)) if was else "nothing"
        is_now = ("" if best and best.exact else "<= ") + dollars(best.cost) if best else "SLA missed"
        known = "yes" if one.suffices else f"no: {len(one.rivals)} others may be cheaper"
        number, config = (str(best.trial.number), str(best.trial.config)) if best else ("", "")
        shown.add_row(one.finished.name, before, is_now, number, Text(config), known)
    return shown


def _trials(repriced: Repriced) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0))
    scenario = repriced.scenario
    slos = [f"{slo.metric.upper()} {slo.statistic}" for slo in scenario.sla.slos]
    for name in ("trial", OBJECTIVE_TITLES[scenario.objective], *slos, "load", "configuration"):
        shown.add_column(name)
    for one in repriced.rescored[:SHOWN]:
        if one.level is not None:
            observed = [milliseconds(slo.observed(one.level)) for slo in scenario.sla.slos]
            bound = "" if one.exact else "<= "
            load = f"{one.level.load:,.6g}"
            shown.add_row(
                str(one.trial.number), f"{bound}{dollars(one.cost)}", *observed, load, Text(str(one.trial.config))
            )
    return shown


def _least(one: Rescored) -> str:
    return f"down to {dollars(one.least)}" if one.least else "by an unknown amount"

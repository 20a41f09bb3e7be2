"""How a retune is shown on a terminal, below its verdict."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.retune.retune import Retuned
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.search.search import objective
from tuner.search.trial import Trial


def show_retuned(console: Console, found: Retuned, output: Path, studies: Path) -> None:
    """What was measured side by side, the evidence, and what to do next."""
    console.print(_sides(found))
    for line in found.verdict.evidence:
        console.print(f"- {line}", markup=False)
    for change in found.changes:
        console.print(f"- Changed since the promotion: {change}", markup=False)
    for line in found.settings:
        console.print(f"- {line}", markup=False)
    measured = sum(trial.ending == "measured" for trial in found.trials)
    console.print(
        f"- {measured} of {len(found.trials)} configurations measured on {found.sides.after}: study {found.study}",
        markup=False,
    )
    if found.sides.new.experiment.runner in ("simulated", "estimated"):
        console.print("Predictions, not measurements: both releases were simulated.")
    after = found.sides.after
    stem = f"{found.champion.experiment}-{after.name}-{after.version}"
    console.print(f"Summary: {output / stem}.md, {output / stem}.html", markup=False)
    if found.verdict.outcome == "switch":
        where = "" if str(studies) == "studies" else f" --studies {studies}"
        command = f"servetune champion promote {found.study} --trial {found.winner.number}{where}"
        console.print(f"Next, once it is deployed: {command}", markup=False, soft_wrap=True)
    if found.verdict.outcome == "upgrade":
        command = f"servetune retune {found.champion.experiment} --engine {after.name} --to {after.version} --promote"
        console.print(f"Next, once it is deployed: {command} --force", markup=False, soft_wrap=True)


def _sides(found: Retuned) -> Table:
    scenario = found.scenario
    table = Table(box=None, padding=(0, 2, 0, 0))
    slos = [f"{slo.metric.upper()} {slo.statistic}" for slo in scenario.sla.slos]
    for name in ("", "release", OBJECTIVE_TITLES[scenario.objective], *slos, "load", "configuration"):
        table.add_column(name)
    rows = [("champion", found.sides.before, found.before), ("champion", found.sides.after, found.after)]
    for who, engine, trial in (*rows, ("challenger", found.sides.after, found.challenger)):
        if trial is not None:
            table.add_row(who, str(engine), *_figures(found, trial), Text(str(trial.config)))
    return table


def _figures(found: Retuned, trial: Trial) -> list[str]:
    level = trial.measurement
    observed = [milliseconds(slo.observed(level)) for slo in found.scenario.sla.slos]
    return [dollars(objective(found.scenario, trial)), *observed, f"{level.load:,.6g}"]

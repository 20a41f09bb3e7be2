"""How a champion is shown: what serves, what it costs, and how it came there."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from search_spaces.wording import in_words
from tuner.retune.champion import Audited, Champion
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.search.search import objective
from tuner.search.session import Session


def champion_table(champion: Champion, history: Sequence[Audited]) -> Group:
    """The champion as a table, its history below."""
    scenario = Session(experiment=champion.asked_experiment).scenario
    facts = Table.grid(padding=(0, 2))
    facts.add_row("experiment", champion.experiment)
    facts.add_row("champion", Text(in_words(champion.config)))
    facts.add_row(OBJECTIVE_TITLES[scenario.objective], dollars(objective(scenario, champion.trial)))
    for slo in scenario.sla.slos:
        observed = milliseconds(slo.observed(champion.level))
        facts.add_row(f"{slo.metric.upper()} {slo.statistic}", f"{observed} of {milliseconds(slo.limit_s)}")
    facts.add_row("measured", f"{champion.level.source}, at load {champion.level.load:,.6g}")
    for name, value in champion.machine.items():
        facts.add_row(name, value)
    facts.add_row("from", Text(f"study {champion.study}, trial {champion.trial.number}, MLflow run {champion.run_id}"))
    facts.add_row("version", champion.version)
    return Group(facts, _history(history))


def _history(history: Sequence[Audited]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title="", title_justify="left")
    for name in ("when", "what", "from", "to", "by", "why"):
        table.add_column(name)
    for move in history:
        what = move.action if move.done else f"{move.action} (broke off)"
        table.add_row(move.at[:19].replace("T", " "), what, move.before or "-", move.after, move.by, Text(move.why))
    return table

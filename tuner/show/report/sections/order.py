"""Every section of a report, in the order in which they are read."""

from runners.served.shell import how_to_start
from tuner.scenario.sla import BACKLOG
from tuner.show.report.page import Block, Code, Section, Table
from tuner.show.report.report import Report
from tuner.show.report.reproduce import commands, releases
from tuner.show.report.sections.comparison import comparison, load, pareto
from tuner.show.report.sections.money import energy, money
from tuner.show.report.sections.reasons import binding, excluded, importance_section, shadow_price_section


def sections(report: Report) -> list[Section]:
    """All of them. Raises InputError where nothing was measured."""
    made = (
        comparison(report),
        pareto(report),
        load(report),
        binding(report),
        importance_section(report),
        shadow_price_section(report),
        excluded(report),
        money(report),
        energy(report),
        reproduce(report),
    )
    return list(made)


def reproduce(report: Report) -> Section:
    finished = report.finished
    versions = Table(caption="Versions", heads=["", "release"], rows=releases(report), words=(0, 1))
    start = how_to_start(finished.scenario.model, finished.winning_config)
    blocks: list[Block] = [
        Code(caption="Tune again, and make this report", text="\n".join(commands(report))),
        Code(caption="Start the winner", text=start),
        Code(caption=f"The experiment, {finished.experiment.path.name}", text=finished.text.rstrip()),
        versions,
    ]
    missed = finished.answer.missed(report.winner)
    text = ["The server does not keep up at any load that was tried."] if BACKLOG in missed else []
    return Section(anchor="reproduce", title="How to reproduce this", text=text, blocks=blocks)

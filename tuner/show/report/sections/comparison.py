"""What was found beside the winner: the default, the runners-up, the front, and other loads."""

from collections.abc import Iterator

from runners.measurement import Measurement
from search_spaces.knobs import flatten
from search_spaces.wording import in_words, plural
from tuner.scenario.amounts import dollars, milliseconds, rate
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.search.trial import Trial
from tuner.show.report.charts import load_charts, pareto_charts
from tuner.show.report.contender import Contender
from tuner.show.report.page import Chart, Section, Table
from tuner.show.report.report import Report
from tuner.show.report.sections.words import kind, law, reached
from tuner.show.report.shadow_prices import served

RUNNERS_UP = 5
SHOWN_POINTS = 12


def comparison(report: Report) -> Section:
    heads = ["", *(f"{item.label} ({kind(item.measurement)})" for item in report.contenders)]
    figures = Table(caption="Figures", heads=heads, rows=list(_figure_rows(report)))
    flat = [{**dict.fromkeys(_knobs(report), "–"), **_texts(item)} for item in report.contenders]  # noqa: RUF001
    rows = [[knob, *(values[knob] for values in flat)] for knob in _knobs(report)]
    differing = [row for row in rows if len(set(row[1:])) > 1 or len(report.contenders) == 1]
    text = [f"{item.label}: {in_words(item.config)}." for item in report.contenders[1:]]
    blocks = [figures]
    if differing:
        blocks.append(Table(caption="Settings that differ", heads=["setting", *heads[1:]], rows=differing))
    blocks += _runners_up(report)
    return Section(anchor="comparison", title="Against the default and the runners-up", text=text, blocks=blocks)


def _texts(contender: Contender) -> dict[str, str]:
    return {knob: str(value) for knob, value in flatten(contender.config).items()}


def _knobs(report: Report) -> list[str]:
    return list(dict.fromkeys(knob for item in report.contenders for knob in flatten(item.config)))


def _figure_rows(report: Report) -> Iterator[list[str]]:
    scenario, contenders = report.finished.scenario, report.contenders
    costs = [scenario.cost(item.measurement) for item in contenders]
    levels = [item.measurement for item in contenders]
    yield ["$/M output tokens", *(dollars(c.usd_per_million_output_tokens) for c in costs)]
    yield ["$/M total tokens", *(dollars(c.usd_per_million_total_tokens) for c in costs)]
    yield ["output tokens/s/GPU", *(rate(c.output_tokens_per_s_per_gpu) for c in costs)]
    yield ["tokens/s/user", *(rate(c.tokens_per_s_per_user) for c in costs)]
    yield [f"load ({scenario.workload.load_unit})", *(f"{level.load:,.4g}" for level in levels)]
    yield ["GPUs held", *(str(level.gpus) for level in levels)]
    if any(scenario.left_over(level.gpus) for level in levels):
        yield ["GPUs left over, charged too", *(str(scenario.left_over(level.gpus)) for level in levels)]
    for slo in scenario.sla.slos:
        yield [law(slo), *(reached(slo, level) for level in levels)]


def _runners_up(report: Report) -> list[Table]:
    finished = report.finished
    first, *others = finished.ranked
    if not others:
        return []
    answer, objective = finished.answer, finished.scenario.objective
    reference = answer.scenario.usd_per_million(first.measurement)
    slos = finished.scenario.sla.slos
    rows = []
    for trial in others[:RUNNERS_UP]:
        value = answer.scenario.usd_per_million(trial.measurement)
        bound = "" if trial.exact else "≤ "
        observed = (reached(slo, trial.measurement) for slo in slos)
        rows.append(
            [f"{trial.number}: {trial.config}", f"{bound}{dollars(value)}", f"{value / reference - 1:+.1%}", *observed]
        )
    heads = ["trial: configuration", OBJECTIVE_TITLES[objective], "against the winner"]
    heads += [f"{slo.metric.upper()} {slo.statistic}" for slo in slos]
    caption = "Runners-up (≤: its capacity was not made exact, as it could not win)"
    return [Table(caption=caption, heads=heads, rows=rows)]


def pareto(report: Report) -> Section:
    finished = report.finished
    scenario = finished.scenario
    charts = pareto_charts(scenario, served(finished), report.contenders)
    points = finished.answer.pareto()
    step = max(len(points) / SHOWN_POINTS, 1)
    shown = [points[int(index * step)] for index in range(min(len(points), SHOWN_POINTS))]
    rows = [
        [
            str(point.config),
            dollars(point.cost.objective(scenario.objective)),
            rate(point.cost.tokens_per_s_per_user),
            rate(point.cost.output_tokens_per_s_per_gpu),
            f"{point.measurement.load:,.4g}",
            "met" if point.meets_sla else "missed",
        ]
        for point in shown
    ]
    heads = ["configuration", OBJECTIVE_TITLES[scenario.objective], "tokens/s/user", "tokens/s/GPU", "load", "SLA"]
    table = Table(caption="Points of the front, from cheap to quick", heads=heads, rows=rows, folded=True)
    text = [
        (
            "Every point is one load of one configuration that was tried; lines join those that no other of the same "
            "kind beats in both directions. Filled points meet the whole SLA, hollow ones do not. The dashed "
            "line is the SLO on the time per token. It holds at its own percentile, while points lie at the "
            "median, so that a point to the right of it may still miss."
        )
    ]
    return Section(anchor="pareto", title="Cost against speed", text=text, blocks=[*charts, table])


def load(report: Report) -> Section:
    scenario, trial = report.finished.scenario, report.winner
    levels = report.finished.curve
    charts: list[Chart | Table] = []
    if len(levels) > 1:
        charts += load_charts(scenario, levels, trial.measurement)
    rows = [_level_row(report, trial, level) for level in levels]
    heads = [
        f"load ({scenario.workload.load_unit})",
        OBJECTIVE_TITLES[scenario.objective],
        *(f"TTFT p{p}" for p in (50, 90, 99)),
        *(f"TPOT p{p}" for p in (50, 90, 99)),
        "SLA",
    ]
    charts.append(Table(caption="Loads of the winner", heads=heads, rows=rows))
    text = [
        (
            f"The winner was run at {plural(len(levels), 'load')} to find the highest that meets the SLA and to "
            "show its latency; latencies are of completed requests after the warm-up."
        )
    ]
    return Section(anchor="load", title="Latency against load", text=text, blocks=charts)


def _level_row(report: Report, trial: Trial, level: Measurement) -> list[str]:
    scenario = report.finished.scenario
    verdict = "met" if scenario.sla.met_by(level) else "missed"
    return [
        f"{level.load:,.4g}{' (counts)' if level is trial.measurement else ''}",
        dollars(scenario.usd_per_million(level)),
        *(milliseconds(level.ttft.at(p)) for p in (50, 90, 99)),
        *(milliseconds(level.tpot.at(p)) for p in (50, 90, 99)),
        verdict,
    ]

"""Why it is the winner: what binds, which knobs matter, what the SLA costs, and what was infeasible."""

from collections.abc import Iterator

from runners.measurement import Measurement
from search_spaces.wording import plural
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.scenario.sla import Slo
from tuner.show.report.charts import importance_chart
from tuner.show.report.page import Block, Section, Table
from tuner.show.report.report import Report
from tuner.show.report.sections.words import law
from tuner.show.report.shadow_prices import ShadowPrice

SHOWN_CAUSES = 12


def binding(report: Report) -> Section:
    found = report.binding
    behind = f", and behind it {found.behind}" if found.behind else ""
    text = [f"What binds is {law(found.limit)}{behind}."]
    rows = [
        [law(limit.name), "unknown" if limit.use is None else f"{limit.use:.0%}", limit.evidence]
        for limit in found.limits
    ]
    if any(limit.name == "Prefill compute" for limit in found.limits):
        text.append(
            "Shares of time are worked out from the kernel times of the silicon database at the winner's own batch: "
            "work that takes as long for half the batch is reading weights (bandwidth), work that doubles with the "
            "batch is computing."
        )
    else:
        text.append("There are no kernel times of this deployment: only what was measured can be said.")
    table = Table(
        caption="How near the winner is to each limit", heads=["limit", "in use", "evidence"], rows=rows, words=(0, 2)
    )
    return Section(anchor="binding", title="What binds", text=text, blocks=[table])


def importance_section(report: Report) -> Section:
    title = "Which knobs matter"
    found = report.importance
    if found is None:
        text = ["Too few trials meet the SLA, or all cost the same: nothing can be said."]
        return Section(anchor="importance", title=title, text=text)
    rows = [
        [knob, f"{share:.0%}", f"{found.among_the_best.get(knob, 0):.0%}"]
        for knob, share in sorted(found.explained.items(), key=lambda item: -item[1])
    ]
    heads = ["knob", "difference explained (fANOVA)", "tells the best tenth (PED-ANOVA)"]
    text = [
        (
            f"Of the {found.trials} trials that meet the SLA, by Optuna's evaluators. The search tries mostly "
            "what is predicted to be good, so a knob that it hardly varied shows little here."
        )
    ]
    blocks: list[Block] = [
        importance_chart(found),
        Table(caption="Importance of each knob", heads=heads, rows=rows, folded=True),
    ]
    return Section(anchor="importance", title=title, text=text, blocks=blocks)


def shadow_price_section(report: Report) -> Section:
    title = "What the SLA costs"
    heads = [
        "SLO",
        "observed",
        "saved by each extra ms, by loads tried",
        "by the closed form",
        "looser limit",
        "at",
    ]
    rows = [_shadow_row(price) for price in report.shadow_prices]
    prices = Table(
        caption=f"Shadow prices, in {OBJECTIVE_TITLES[report.finished.scenario.objective]}, the other SLOs met",
        heads=heads,
        rows=rows,
    )
    return Section(
        anchor="shadow-prices", title=title, text=list(_shadow_text(report)), blocks=[prices, *_menu(report)]
    )


def _shadow_row(price: ShadowPrice) -> list[str]:
    cheaper = price.cheaper
    return [
        law(price.slo),
        milliseconds(price.observed_s),
        "–" if price.measured is None else _per_ms(price.measured),  # noqa: RUF001
        "–" if price.closed_form is None else _per_ms(price.closed_form),  # noqa: RUF001
        "–" if cheaper is None else milliseconds(cheaper.limit_s),  # noqa: RUF001
        "–" if cheaper is None else f"{dollars(cheaper.objective)} ({cheaper.config})",  # noqa: RUF001
    ]


def _per_ms(value: float) -> str:
    return f"${value:.2g}" if value else "$0"


def _shadow_text(report: Report) -> Iterator[str]:
    finished = report.finished
    kind = "predicted by the simulator" if finished.predicted else "measured"
    yield (
        "A shadow price is what a million tokens would cost less if an SLO were a millisecond longer. The first "
        f"figure is worked out from loads that were tried ({kind}): from the winner to the nearest load that misses "
        "this SLO alone and is at least 2 % cheaper. The second is the closed-form model's for the winner's own "
        "configuration with the SLO 10 % longer; it knows means only."
    )
    cheaper = report.nearest_cheaper
    if not finished.meets_sla:
        level = report.winner.measurement
        limits = ", ".join(_loosened(slo, level) for slo in finished.scenario.sla.slos)
        yield f"The SLA is not met, so it has no price. The nearest that could be met: {limits}."
        return
    if cheaper is None:
        yield "No load tried is 2 % cheaper than the winner or more: a looser SLA saves nothing here."
        return
    limits = ", ".join(_loosened(slo, cheaper.measurement) for slo in finished.scenario.sla.slos)
    saving = 1 - cheaper.objective / report.objective(report.contenders[0])
    yield (
        f"The nearest cheaper SLA: {limits} would cost {dollars(cheaper.objective)} ({saving:.0%} less), with "
        f"{cheaper.config} at a load of {cheaper.measurement.load:,.4g} {finished.scenario.workload.load_unit}."
    )


def _loosened(slo: Slo, level: Measurement) -> str:
    limit = max(slo.observed(level), slo.limit_s)
    return f"{slo.metric.upper()} {slo.statistic} {milliseconds(limit)}"


def _menu(report: Report) -> list[Table]:
    slo = report.nearest_slo
    rows = [
        [
            f"{milliseconds(item.limit_s)}{' (the SLO)' if item.factor == 1 else ''}",
            dollars(item.objective),
            str(item.config),
        ]
        for item in report.menu
    ]
    if not rows:
        return []
    title = f"{slo.metric.upper()} {slo.statistic}"
    heads = [f"{title} at most", OBJECTIVE_TITLES[report.finished.scenario.objective], "cheapest configuration tried"]
    return [Table(caption=f"What other limits of {title} would cost", heads=heads, rows=rows, words=(0, 2))]


def excluded(report: Report) -> Section:
    finished = report.finished
    answer = finished.answer
    trials = plural(len(finished.trials), "trial")
    blocks = [counts(f"How {trials} ended", answer.ended())]
    details = [
        [str(trial.number), f"{trial.ending}: {trial.cause}", str(trial.config or ""), trial.detail.strip()[-300:]]
        for trial in finished.trials
        if trial.ending != "measured"
    ]
    if details:
        heads = ["trial", "ending", "configuration", "detail"]
        caption = "Trials without a measurement"
        blocks.append(Table(caption=caption, heads=heads, rows=details[:20], words=(0, 1, 2, 3), folded=True))
    if finished.summary and finished.summary.excluded:
        caption = f"Why combinations of the space were never tried ({finished.summary.combinations:,} in all)"
        blocks.append(counts(caption, finished.summary.excluded))
    return Section(anchor="infeasible", title="What was infeasible or failed", blocks=blocks)


def counts(caption: str, counts: object) -> Table:
    assert isinstance(counts, dict)
    rows = [[cause, f"{count:,}"] for cause, count in counts.items()]
    return Table(caption=caption, heads=["cause", "count"], rows=rows[:SHOWN_CAUSES])

"""Sections: a report in words, tables and charts, in the order in which it is read."""

from collections.abc import Iterator

from runners.measurement import Measurement
from runners.served.shell import how_to_start
from runners.simulated.known_errors import PREDICTION
from search_spaces.hardware.system import find_system, list_price
from search_spaces.knobs import flatten
from search_spaces.wording import in_words, plural
from tuner.scenario.amounts import dollars, milliseconds, rate
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.scenario.sla import BACKLOG, Slo
from tuner.search.trial import Trial
from tuner.show.report.charts import importance_chart, load_charts, pareto_charts
from tuner.show.report.contender import Contender
from tuner.show.report.economics import FIFTEENFOLD, HOURS_PER_MONTH, YEAR_S
from tuner.show.report.page import Block, Chart, Code, Section, Table, Tile
from tuner.show.report.report import Report
from tuner.show.report.reproduce import commands, releases
from tuner.show.report.shadow_prices import ShadowPrice, served
from tuner.show.terminal import certainty, left_over_lines

RUNNERS_UP = 5
SHOWN_POINTS = 12
SHOWN_CAUSES = 12


def sections(report: Report) -> list[Section]:
    """All of them. Raises InputError where nothing was measured."""
    made = (
        _comparison(report),
        _pareto(report),
        _load(report),
        _binding(report),
        _importance(report),
        _shadow_prices(report),
        _excluded(report),
        _money(report),
        _energy(report),
        _reproduce(report),
    )
    return list(made)


# The verdict


def experiment(report: Report) -> str:
    scenario = report.finished.scenario
    workload = scenario.workload
    lengths = f"{workload.input_tokens} input and {workload.output_tokens} output tokens"
    if workload.trace is not None:
        lengths = f"{len(workload.trace.arrival):,} requests of {workload.trace.path.rpartition('/')[2]}"
    return (
        f"Which way of serving {scenario.model.name} on {plural(scenario.gpus, 'GPU')} of {scenario.system.title} "
        f"({lengths}, {workload.shape.replace('_', ' ')}) has the fewest {OBJECTIVE_TITLES[scenario.objective]} "
        f"and keeps {_law(scenario.sla)}?"
    )


def verdict(report: Report) -> str:
    """One sentence: what to do, at what cost, and against what."""
    finished = report.finished
    answer, winner = finished.answer, report.contenders[0]
    figure = f"{dollars(report.objective(winner))} for a million {counted(report)} tokens"
    words = in_words(winner.config)
    if not finished.meets_sla:
        binding = answer.binding()
        limit = f"{_law(binding)} binds" if binding else "the server cannot keep up"
        return f"No configuration tried meets the SLO: {limit}. Nearest, at {figure}: {words}."
    return f"Serve with {words}. That is {figure}, and keeps {_law(finished.scenario.sla)}. {_against_default(report)}"


def _against_default(report: Report) -> str:
    answer = report.finished.answer
    if answer.baseline is None:
        return "What the engine's default configuration costs is not known."
    if answer.saving is None:
        return f"The engine's default configuration breaks the SLO ({', '.join(answer.missed(answer.baseline))})."
    if answer.saving <= 0:
        return "The engine's default configuration is not dearer on the same GPUs."
    return (
        f"The engine's default configuration costs {dollars(report.objective(report.contenders[1]))} on the same GPUs."
    )


def tiles(report: Report) -> list[Tile]:
    winner = report.contenders[0]
    figures = report.finished.scenario.cost(winner.measurement)
    objective = OBJECTIVE_TITLES[report.finished.scenario.objective]
    made = [Tile(label=objective, value=dollars(report.objective(winner)))]
    saving = report.finished.answer.saving
    if saving is not None:
        made.append(Tile(label="against the default", value=f"{-saving:+.0%}".replace("-", "−")))  # noqa: RUF001
    made += [
        Tile(label="output tokens/s/GPU", value=rate(figures.output_tokens_per_s_per_gpu)),
        Tile(label="tokens/s/user", value=rate(figures.tokens_per_s_per_user)),
        Tile(
            label="what binds",
            value=_short(report.binding.limit),
            note=f"behind it: {report.binding.behind}" if report.binding.behind else "",
        ),
    ]
    return made


def _short(limit: str) -> str:
    return limit.removeprefix("the SLO ").partition(" <=")[0]


def _law(slos: object) -> str:
    return str(slos).replace("<=", "≤")


def caveats(report: Report) -> list[str]:
    """What the reader must know before believing a figure."""
    finished = report.finished
    found = []
    source = report.winner.measurement.source
    if source in PREDICTION:
        found.append(PREDICTION[source])
    found += left_over_lines(finished.answer)
    found += certainty(finished.answer)
    if finished.unfinished:
        found.append(f"The study is unfinished: {finished.unfinished}. Better configurations may be left to try.")
    if not report.winner.exact and finished.meets_sla:
        found.append("The winner's capacity was not made exact: a higher load may meet the SLO too.")
    return found


def counted(report: Report) -> str:
    """Which tokens the objective counts."""
    objective = report.finished.scenario.objective
    return "output" if objective == "usd_per_million_output_tokens" else "input and output"


def _kind(level: Measurement) -> str:
    return "predicted" if level.source in PREDICTION else "measured"


# Against the others


def _comparison(report: Report) -> Section:
    heads = ["", *(f"{item.label} ({_kind(item.measurement)})" for item in report.contenders)]
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
        yield [_law(slo), *(_observed(slo, level) for level in levels)]


def _observed(slo: Slo, level: Measurement) -> str:
    return f"{milliseconds(slo.observed(level))}{'' if slo.excess(level) <= 0 else ' (missed)'}"


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
        observed = (_observed(slo, trial.measurement) for slo in slos)
        rows.append(
            [f"{trial.number}: {trial.config}", f"{bound}{dollars(value)}", f"{value / reference - 1:+.1%}", *observed]
        )
    heads = ["trial: configuration", OBJECTIVE_TITLES[objective], "against the winner"]
    heads += [f"{slo.metric.upper()} {slo.statistic}" for slo in slos]
    caption = "Runners-up (≤: its capacity was not made exact, as it could not win)"
    return [Table(caption=caption, heads=heads, rows=rows)]


def _pareto(report: Report) -> Section:
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
            "kept" if point.meets_sla else "missed",
        ]
        for point in shown
    ]
    heads = ["configuration", OBJECTIVE_TITLES[scenario.objective], "tokens/s/user", "tokens/s/GPU", "load", "SLA"]
    table = Table(caption="Points of the front, from cheap to quick", heads=heads, rows=rows, folded=True)
    text = [
        (
            "Every point is one load of one configuration that was tried; lines join those that no other of the same "
            "kind beats in both directions. Filled points keep the whole SLO, hollow ones do not. The dashed "
            "line is the promised time per token. It is promised at its own percentile, while points lie at the "
            "median, so that a point to the right of it may still miss."
        )
    ]
    return Section(anchor="pareto", title="Cost against speed", text=text, blocks=[*charts, table])


def _load(report: Report) -> Section:
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
            f"The winner was run at {plural(len(levels), 'load')} to find the highest that meets the SLO and to "
            "show its latency; latencies are of completed requests after the warm-up."
        )
    ]
    return Section(anchor="load", title="Latency against load", text=text, blocks=charts)


def _level_row(report: Report, trial: Trial, level: Measurement) -> list[str]:
    scenario = report.finished.scenario
    kept = "kept" if scenario.sla.met_by(level) else "missed"
    return [
        f"{level.load:,.4g}{' (counts)' if level is trial.measurement else ''}",
        dollars(scenario.usd_per_million(level)),
        *(milliseconds(level.ttft.at(p)) for p in (50, 90, 99)),
        *(milliseconds(level.tpot.at(p)) for p in (50, 90, 99)),
        kept,
    ]


# Why


def _binding(report: Report) -> Section:
    found = report.binding
    behind = f", and behind it {found.behind}" if found.behind else ""
    text = [f"What binds is {_law(found.limit)}{behind}."]
    rows = [
        [_law(limit.name), "unknown" if limit.use is None else f"{limit.use:.0%}", limit.evidence]
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


def _importance(report: Report) -> Section:
    title = "Which knobs matter"
    found = report.importance
    if found is None:
        text = ["Too few trials meet the SLO, or all cost the same: nothing can be said."]
        return Section(anchor="importance", title=title, text=text)
    rows = [
        [knob, f"{share:.0%}", f"{found.among_the_best.get(knob, 0):.0%}"]
        for knob, share in sorted(found.explained.items(), key=lambda item: -item[1])
    ]
    heads = ["knob", "difference explained (fANOVA)", "tells the best tenth (PED-ANOVA)"]
    text = [
        (
            f"Of the {found.trials} trials that meet the SLO, by Optuna's evaluators. The search tries mostly "
            "what is predicted to be good, so a knob that it hardly varied shows little here."
        )
    ]
    blocks: list[Block] = [
        importance_chart(found),
        Table(caption="Importance of each knob", heads=heads, rows=rows, folded=True),
    ]
    return Section(anchor="importance", title=title, text=text, blocks=blocks)


def _shadow_prices(report: Report) -> Section:
    title = "What the SLO costs"
    heads = [
        "slo",
        "observed",
        "saved by each extra ms, by loads tried",
        "by the closed form",
        "looser limit",
        "at",
    ]
    rows = [_shadow_row(price) for price in report.shadow_prices]
    prices = Table(
        caption=f"Shadow prices, in {OBJECTIVE_TITLES[report.finished.scenario.objective]}, the other SLOs kept",
        heads=heads,
        rows=rows,
    )
    return Section(
        anchor="shadow-prices", title=title, text=list(_shadow_text(report)), blocks=[prices, *_menu(report)]
    )


def _shadow_row(price: ShadowPrice) -> list[str]:
    cheaper = price.cheaper
    return [
        _law(price.slo),
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
        "A shadow price is what a million tokens would cost less if the SLO were a millisecond longer. The first "
        f"figure is worked out from loads that were tried ({kind}): from the winner to the nearest load that misses "
        "this SLO alone and is at least 2 % cheaper. The second is the closed-form model's for the winner's own "
        "configuration with the SLO 10 % longer; it knows means only."
    )
    cheaper = report.nearest_cheaper
    if not finished.meets_sla:
        level = report.winner.measurement
        limits = ", ".join(_loosened(slo, level) for slo in finished.scenario.sla.slos)
        yield f"The SLO is not met, so it has no price. The nearest that could be kept: {limits}."
        return
    if cheaper is None:
        yield "No load tried is 2 % cheaper than the winner or more: a looser SLO is worth nothing here."
        return
    limits = ", ".join(_loosened(slo, cheaper.measurement) for slo in finished.scenario.sla.slos)
    saving = 1 - cheaper.objective / report.objective(report.contenders[0])
    yield (
        f"The nearest cheaper SLO: {limits} would cost {dollars(cheaper.objective)} ({saving:.0%} less), with "
        f"{cheaper.config} at a load of {cheaper.measurement.load:,.4g} {finished.scenario.workload.load_unit}."
    )


def _loosened(slo: Slo, level: Measurement) -> str:
    limit = max(slo.observed(level), slo.limit_s)
    return f"{slo.metric.upper()} {slo.statistic} {milliseconds(limit)}"


def _menu(report: Report) -> list[Table]:
    slo = report.nearest_slo
    rows = [
        [
            f"{milliseconds(item.limit_s)}{' (promised)' if item.factor == 1 else ''}",
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


def _excluded(report: Report) -> Section:
    finished = report.finished
    answer = finished.answer
    trials = plural(len(finished.trials), "trial")
    blocks = [_counts(f"How {trials} ended", answer.ended())]
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
        blocks.append(_counts(caption, finished.summary.excluded))
    return Section(anchor="fell-out", title="What were excluded", blocks=blocks)


def _counts(caption: str, counts: object) -> Table:
    assert isinstance(counts, dict)
    rows = [[cause, f"{count:,}"] for cause, count in counts.items()]
    return Table(caption=caption, heads=["cause", "count"], rows=rows[:SHOWN_CAUSES])


# Money and energy


def _money(report: Report) -> Section:
    found, scenario = report.month, report.finished.scenario
    price = scenario.price
    energy = f" + ${price.usd_per_kwh:g}/kWh" if price.usd_per_kwh else ""
    tokens = counted(report)
    text = [
        f"At ${price.usd_per_gpu_hour:.2f}/GPU-hour{energy}: {price.source}.",
        (
            f"One deployment serves tokens/s x 3600 x {HOURS_PER_MONTH} tokens a month around the clock; as many "
            f"whole deployments are held as the tokens sold take. Cost = GPUs x $/GPU-hour x {HOURS_PER_MONTH}; "
            f"revenue = {tokens} tokens sold x price; return = revenue / cost."
        ),
    ]
    if report.demand.tokens_per_month is None:
        text.append("No demand was given (--tokens-per-month): all that one deployment can serve counts as sold.")
    if found.revenue is None:
        text.append("No price was given (--revenue-per-million): revenue and return are left out.")
    text.append(
        f"The worked example is the claim “{FIFTEENFOLD.text}” ({FIFTEENFOLD.source}). It takes for granted that the "
        f"rack is full for {FIFTEENFOLD.years:g} years and every token, of input and output, is sold. The price of a "
        "token is not published: revenue / tokens implies it."
    )
    heads = ["a month", *(item.label for item in report.contenders)]
    months = Table(caption="Cost, revenue and return", heads=heads, rows=list(_month_rows(report)))
    return Section(anchor="money", title="Cost and return", text=text, blocks=[months, _claim(report)])


def _month_rows(report: Report) -> Iterator[list[str]]:
    months = [report.month_of(item) for item in report.contenders]
    yield [f"{counted(report)} tokens sold", *(f"{m.tokens / 1e9:,.4g} billion" for m in months)]
    yield ["deployments", *(str(m.deployments) for m in months)]
    yield ["GPUs", *(str(m.gpus) for m in months)]
    yield ["utilisation", *(f"{m.utilisation:.0%}" for m in months)]
    yield ["cost", *(_whole_dollars(m.cost) for m in months)]
    yield ["cost of a million tokens sold", *(dollars(m.usd_per_million) for m in months)]
    if report.month.revenue is not None:
        yield ["revenue", *(_whole_dollars(m.revenue or 0) for m in months)]
        yield ["profit", *(_whole_dollars(m.profit or 0) for m in months)]
        yield ["return (revenue / cost)", *(f"{m.return_on_cost or 0:.3g}x" for m in months)]


def _whole_dollars(value: float) -> str:
    return f"-${-value:,.0f}" if value < 0 else f"${value:,.0f}"


def _claim(report: Report) -> Table:
    """The published return, the same rack rented, and the same sum for the winner where a price was given."""
    claim = FIFTEENFOLD
    hours = claim.years * YEAR_S / 3600
    rent = claim.gpus * list_price(find_system(claim.system), "hyperscaler").usd_per_gpu_hour * hours
    columns = [
        _return_column("as published", claim.gpus, claim.tokens, claim.usd_per_million, claim.investment, "investment"),
        _return_column("the same, rented at list price", claim.gpus, claim.tokens, claim.usd_per_million, rent, "rent"),
    ]
    price = report.demand.usd_per_million
    if price is not None:
        gpus = report.finished.scenario.charged_gpus(report.contenders[0].measurement.gpus)
        spent = gpus * report.finished.scenario.price.usd_per_gpu_second * claim.years * YEAR_S
        tokens = report.month.capacity * hours / HOURS_PER_MONTH
        columns.append(_return_column("this winner, at your price", gpus, tokens, price, spent, "rent"))
    names = ["", "GPUs", "tokens in three years, always full", "tokens/s/GPU", "price of a million tokens"]
    names += ["revenue = tokens x price", "cost", "return = revenue / cost"]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    caption = "A worked example of a return: the published fifteenfold"
    return Table(caption=caption, heads=rows[0], rows=rows[1:])


def _return_column(title: str, gpus: int, tokens: float, price: float, spent: float, kind: str) -> list[str]:
    revenue = tokens / 1e6 * price
    return [
        title,
        str(gpus),
        f"{tokens / 1e12:,.3g} trillion",
        rate(tokens / (FIFTEENFOLD.years * YEAR_S) / gpus),
        dollars(price),
        _whole_dollars(revenue),
        f"{_whole_dollars(spent)} ({kind})",
        f"{revenue / spent:.3g}x",
    ]


def _energy(report: Report) -> Section:
    found, scenario = report.energy, report.finished.scenario
    text = [
        (
            f"{scenario.price.all_in_watts_per_gpu:,.0f} W for each GPU charged, all in (cooling and losses included, "
            "idle or not; stated with the price, not measured)."
        )
    ]
    rows = [
        ["tokens/s/MW", rate(found.output_tokens_per_s_per_mw), rate(found.total_tokens_per_s_per_mw)],
        ["Wh for a million tokens", rate(found.wh_per_million_output_tokens), rate(found.wh_per_million_total_tokens)],
    ]
    heads = ["", "output tokens", "input and output tokens"]
    table = Table(caption=f"The winner's energy, at {found.watts / 1000:,.4g} kW", heads=heads, rows=rows)
    return Section(anchor="energy", title="Energy", text=text, blocks=[table])


def _reproduce(report: Report) -> Section:
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

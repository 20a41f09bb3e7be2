"""A finished search on the terminal: the verdict first, then the evidence, then what to do next."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runners.measurement import Measurement
from runners.recorded.recording import Recording
from runners.served.shell import how_to_start
from runners.simulated.known_errors import PREDICTION, caveat
from search_spaces.config import ServingConfig
from search_spaces.knobs import flatten
from search_spaces.wording import in_words, plural
from tuner.scenario.amounts import dollars, milliseconds, rate
from tuner.scenario.cost import OBJECTIVE_TITLES, Cost
from tuner.scenario.recorded import configurations, judged_on_means
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import BACKLOG, Slo
from tuner.search.replayed import Replayed
from tuner.search.trial import Trial
from tuner.study.answer import Answer, Point

if TYPE_CHECKING:
    from tuner.study.outcome import Outcome, Where

RUNNERS_UP = 5
PARETO_STEP = 1.1


def show_experiment(console: Console, scenario: Scenario) -> None:
    """What is being asked, in three lines."""
    workload = scenario.workload
    lengths = f"{workload.input_tokens} input and {workload.output_tokens} output tokens"
    if workload.trace is not None:
        lengths = f"{len(workload.trace.arrival)} requests of {escape(workload.trace.path)}"
    price = scenario.price
    console.print(
        f"[bold]{scenario.model.name}[/] on {plural(scenario.gpus, 'GPU')} of {scenario.system.title}, "
        f"{lengths}, {workload.shape.replace('_', ' ')}"
    )
    console.print(f"SLA: {scenario.sla}")
    energy = f" + ${price.usd_per_kwh:g}/kWh" if price.usd_per_kwh else ""
    console.print(
        f"Minimise {OBJECTIVE_TITLES[scenario.objective]} at ${price.usd_per_gpu_hour:.2f}/GPU-hour{energy} "
        f"[dim]({escape(price.source)})[/]"
    )


def show_recorded(console: Console, scenario: Scenario, rows: Sequence[Recording]) -> None:
    """What a search will replay, and what the rows cannot tell."""
    dates = sorted(row.date for row in rows if row.date)
    when = f", measured {dates[0]} to {dates[-1]}" if dates else ""
    known = plural(len(configurations(rows)), "configuration")
    console.print(f"Replay of {plural(len(rows), 'published run')} of {known}{when}; nothing is served")
    means = judged_on_means(scenario.sla)
    if means:
        console.print(f"[yellow]The rows hold means only: {', '.join(means)} judged on the mean[/]")


def show_replayed(console: Console, answer: Answer, found: Replayed) -> None:
    """How near the search came to the best that was recorded, and what its runs would have cost."""
    dear = answer.scenario.price.usd_per_gpu_hour * found.gpu_seconds / 3600
    console.print(
        f"Replayed {found.tried} of {plural(found.configs, 'configuration')}: {found.seconds / 3600:.2f} h and "
        f"{found.gpu_seconds / 3600:.2f} GPU-hours of runs ({dollars(dear)}); all rows took "
        f"{found.all_gpu_seconds / 3600:.2f} GPU-hours. Starting the engines is not recorded and not charged."
    )
    blind = sum(candidate.objective is None for candidate in answer.ranking.candidates)
    if blind:
        console.print(f"{plural(blind, 'configuration')} could not be predicted, so tried last.")
    best = answer.best
    if found.best is None:
        console.print("No recorded run meets this SLA.")
    elif found.dollars and best is not None and answer.meets_sla:
        share = found.dollars / answer.scenario.usd_per_million(best.measurement)
        console.print(
            f"The answer reaches {share:.0%} of the best recorded run: {dollars(found.dollars)} with "
            f"{found.best.config} at {found.best.concurrency} requests in flight."
        )
    if found.found is not None:
        row = found.found
        if found.at_the_top:
            console.print("It was measured at no higher load: more requests in flight may meet the SLA and cost less.")
        ran = f"{row.config.engine.name} {row.release} ran; the commands above are for {row.config.engine.version}"
        console.print(f"Measured row: {row.provenance}; {ran}", markup=False, style="dim", soft_wrap=True)


def show_verdict(console: Console, answer: Answer) -> None:
    """The answer in one panel."""
    best = answer.best
    if best is None:
        untried = answer.ranking.candidates and not answer.trials
        verdict = "No configuration has been tried yet." if untried else "No configuration could be served."
        console.print(Panel(verdict, title="Verdict", border_style="red"))
        return
    assert best.config is not None
    console.print(_verdict(answer, best, best.config))


def show_answer(console: Console, answer: Answer) -> None:
    """The whole answer."""
    show_verdict(console, answer)
    best = answer.best
    if best is None:
        console.print(_counts("Why nothing was measured", {**answer.excluded(), **answer.ended()}))
        return
    assert best.config is not None
    console.print(_slos(answer.scenario, best.measurement))
    console.print(_figures(answer, best))
    console.print(Text("Start it", style="italic"))
    console.print(Text(how_to_start(answer.scenario.model, best.config, answer.scenario.installation)), soft_wrap=True)
    console.print()
    console.print(_runners_up(answer))
    console.print(_pareto(answer))
    console.print(_counts(f"Why {_combinations(answer)} were infeasible", answer.excluded()))
    console.print(_counts(f"How {plural(len(answer.trials), 'trial')} ended", answer.ended()))
    note = caveat(best.measurement.source, best.config.engine) or best.measurement.lacks
    if note:
        console.print(Text(note, style="dim"))


def show_measurement(console: Console, scenario: Scenario, config: ServingConfig, level: Measurement) -> None:
    """One configuration at one load."""
    console.print(in_words(config))
    show_level(console, scenario, level)
    note = caveat(level.source, config.engine)
    if note:
        console.print(Text(note, style="dim"))


def show_level(console: Console, scenario: Scenario, level: Measurement) -> None:
    """What one load was served like, against the SLA, and what that costs."""
    console.print(_slos(scenario, level))
    console.print(_cost_table([("value", scenario.cost(level), level)], scenario))
    if level.lacks:
        console.print(Text(level.lacks, style="dim"))


def _combinations(answer: Answer) -> str:
    ranking = answer.ranking
    feasible = sum(not candidate.binding for candidate in ranking.candidates)
    return f"{ranking.combinations - feasible:,} of {ranking.combinations:,} combinations"


def _verdict(answer: Answer, best: Trial, config: ServingConfig) -> Panel:
    scenario = answer.scenario
    figure = dollars(answer.scenario.usd_per_million(best.measurement))
    words = in_words(config)
    if answer.meets_sla:
        lines = [f"[bold green]{figure}[/] for a million {_tokens(scenario)} tokens: {words}."]
        if answer.saving is not None:
            lines.append(_saving(answer.saving))
        elif answer.baseline is not None:
            missed = ", ".join(answer.missed(answer.baseline))
            lines.append(f"The engine's default configuration breaks the SLA ({missed}).")
        lines += left_over_lines(answer)
        lines += certainty(answer)
        return Panel("\n".join(lines), title="Verdict: SLA met", border_style="green")
    binding = answer.binding()
    limit = f"{binding} binds" if binding else "the server cannot keep up"
    lines = [f"[bold red]No configuration meets the SLA: {limit}.[/]", f"Nearest: {words}."]
    if BACKLOG not in answer.missed(best):
        lines.append(f"This SLA could be met: {_nearest_sla(scenario, best.measurement)}, at {figure}.")
    return Panel("\n".join(lines), title="Verdict: SLA not met", border_style="red")


def left_over_lines(answer: Answer) -> list[str]:
    """How many GPUs the best configuration leaves over, where it does."""
    best = answer.best
    sentence = answer.scenario.left_over_in_words(best.measurement.gpus) if best else ""
    return [sentence] if sentence else []


def certainty(answer: Answer) -> list[str]:
    """How sure the verdict is, as known errors and noise say; another line where others tie."""
    best = answer.judged[0]
    runs = f" ({best.repeats} runs pooled)" if best.repeats > 1 and best.noise else ""
    where = "" if best.noise else "On real hardware, by the known error: "
    interval = f"{dollars(best.low)} to {dollars(best.high)} with 90 %{runs}"
    lines = [f"{where}P(SLA met) {chance(best.probability_met)}; {interval}."]
    if not best.noise and answer.scenario.sla.confidence is None:
        lines.append("`sla: {confidence: 0.9}` in the experiment asks for that much certainty.")
    if answer.ties:
        numbers = ", ".join(str(judged.trial.number) for judged in answer.ties)
        noun = "trial" if len(answer.ties) == 1 else "trials"
        lines.append(f"A tie within the noise with {noun} {numbers}: this one changes the fewest settings.")
    return lines


def chance(probability: float) -> str:
    """Whole per cent, never 0 or 100."""
    return "over 99 %" if probability > 0.995 else "under 1 %" if probability < 0.005 else f"{probability:.0%}"  # noqa: PLR2004


def _tokens(scenario: Scenario) -> str:
    return "output" if scenario.objective == "usd_per_million_output_tokens" else "input and output"


def _saving(saving: float) -> str:
    if saving <= 0:
        cheaper = -saving / (1 - saving)
        return f"The engine's default configuration is not dearer on the same GPUs ({cheaper:.0%} cheaper)."
    return f"[bold]{saving:.0%} cheaper[/] than the engine's default configuration on the same GPUs."


def _nearest_sla(scenario: Scenario, level: Measurement) -> str:
    """SLOs loosened until the SLA is met, rounded up to two digits: those missed, to what was observed.

    With a confidence all are, alike: how likely the SLA is met depends on all of them.
    """
    sla = scenario.sla
    loosened = 1 + max(sla.excess(level).values())
    parts = []
    for slo in sla.slos:
        needed = slo.limit_s * loosened if sla.confidence else slo.observed(level)
        limit = slo.limit_s if needed <= slo.limit_s else _rounded_up(needed)
        parts.append(f"{slo.key}: {limit * 1000:g}")
    return ", ".join(parts)


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def _slos(scenario: Scenario, level: Measurement) -> Table:
    table = Table(title="SLOs", title_justify="left", box=SIMPLE_HEAD)
    for name in ("SLO", "limit", _kind(level), "headroom"):
        table.add_column(name, justify="left" if name == "SLO" else "right")
    for slo in scenario.sla.slos:
        excess = slo.excess(level)
        style = "green" if excess <= 0 else "red"
        table.add_row(
            f"{slo.metric.upper()} {slo.statistic}",
            milliseconds(slo.limit_s),
            milliseconds(slo.observed(level)),
            f"[{style}]{-excess:+.0%}[/]",
        )
    for metric in ("ttft", "tpot"):
        spread = level.latency(metric)
        shown = ", ".join(f"p{p:g} {milliseconds(spread.at(p))}" for p in (50, 90, 99))
        if level.source == "recorded":
            shown = f"mean {milliseconds(spread.mean)}"
        table.add_row(f"[dim]{metric.upper()}[/]", "", f"[dim]{shown}[/]", "")
    if not level.kept_up:
        table.add_row("keeps up with arrivals", "", "[red]no[/]", "")
    return table


def _kind(level: Measurement) -> str:
    """What the figures of a measurement are."""
    if level.source == "recorded":
        return "measured mean"
    return "predicted" if level.source in PREDICTION else "measured"


def _figures(answer: Answer, best: Trial) -> Table:
    columns = [("best", answer.cost(best), best.measurement)]
    if answer.baseline is not None:
        baseline = answer.baseline
        columns.append((f"default ({baseline.config})", answer.cost(baseline), baseline.measurement))
    return _cost_table(columns, answer.scenario)


def _cost_table(columns: Sequence[tuple[str, Cost, Measurement]], scenario: Scenario) -> Table:
    table = Table(title="Figures", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for name, _, _ in columns:
        table.add_column(name, justify="right")
    costs = [figures for _, figures, _ in columns]
    levels = [level for _, _, level in columns]
    table.add_row("$/M output tokens", *(dollars(c.usd_per_million_output_tokens) for c in costs))
    table.add_row("$/M total tokens", *(dollars(c.usd_per_million_total_tokens) for c in costs))
    table.add_row("output tokens/s/GPU", *(rate(c.output_tokens_per_s_per_gpu) for c in costs))
    table.add_row("tokens/s/user", *(rate(c.tokens_per_s_per_user) for c in costs))
    table.add_row("output tokens/s/MW", *(rate(c.tokens_per_s_per_mw) for c in costs))
    table.add_row("GPUs", *(_gpus(scenario, level) for level in levels))
    table.add_row(f"load ({scenario.workload.load_unit})", *(f"{level.load:,.4g}" for level in levels))
    return table


def _gpus(scenario: Scenario, level: Measurement) -> str:
    rest = scenario.left_over(level.gpus)
    return f"{level.gpus} (+{rest} left over)" if rest else str(level.gpus)


def _runners_up(answer: Answer) -> Table:
    scenario = answer.scenario
    table = Table(title="Runners-up", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("#", justify="right")
    table.add_column("configuration", overflow="fold")
    table.add_column(OBJECTIVE_TITLES[scenario.objective], justify="right")
    table.add_column("against best", justify="right")
    for slo in scenario.sla.slos:
        table.add_column(f"{slo.metric.upper()} {slo.statistic}", justify="right")
    first, *others = answer.judged
    noisy = first.noise > 0
    if noisy:
        table.add_column("90 % interval", justify="right")
        table.add_column("P(SLA met)", justify="right")
    reference = answer.scenario.usd_per_million(first.trial.measurement)
    for judged in others[:RUNNERS_UP]:
        trial = judged.trial
        value = answer.scenario.usd_per_million(trial.measurement)
        observed = (_observed(slo, trial.measurement) for slo in scenario.sla.slos)
        table.add_row(
            str(trial.number),
            str(trial.config),
            dollars(value) if trial.exact else f"<= {dollars(value)}",
            f"{value / reference - 1:+.1%}",
            *observed,
            *((f"{dollars(judged.low)} to {dollars(judged.high)}", chance(judged.probability_met)) if noisy else ()),
        )
    return table


def _observed(slo: Slo, level: Measurement) -> Text:
    return Text(milliseconds(slo.observed(level)), style="" if slo.excess(level) <= 0 else "red")


def _pareto(answer: Answer) -> Table:
    scenario = answer.scenario
    title = "Cost against interactivity (no other load tried is better in both)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in (OBJECTIVE_TITLES[scenario.objective], "tokens/s/user", "tokens/s/GPU", "load"):
        table.add_column(name, justify="right")
    table.add_column("SLA")
    table.add_column("configuration", overflow="fold")
    for point in _apart(answer.pareto()):
        table.add_row(
            dollars(point.cost.objective(scenario.objective)),
            rate(point.cost.tokens_per_s_per_user),
            rate(point.cost.output_tokens_per_s_per_gpu),
            f"{point.measurement.load:,.4g}",
            "[green]met[/]" if point.meets_sla else "[red]missed[/]",
            str(point.config),
        )
    return table


def _apart(points: Sequence[Point]) -> list[Point]:
    """Without points that are hardly quicker than the one before."""
    shown: list[Point] = []
    for point in points:
        if not shown or point.cost.tokens_per_s_per_user > shown[-1].cost.tokens_per_s_per_user * PARETO_STEP:
            shown.append(point)
    return shown


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, min_width=len(title))
    table.add_column("cause")
    table.add_column("count", justify="right")
    for cause, count in counts.items():
        table.add_row(cause, f"{count:,}")
    return table


def show_next(
    console: Console,
    outcome: "Outcome",
    *,
    experiment: str,
    where: "Where",
    again: Sequence[str] = (),
    brief: bool = False,
) -> None:
    """Where everything is and, unless `brief`, the next command to try; each on one line of its own, to be copied.

    `again` are the command's own options, with which it goes on after an interruption.
    """
    rows = list(places(outcome, where).items())
    if not outcome.tried and not outcome.interrupted:
        had = plural(len(outcome.answer.trials), "trial")
        rows.append(("Nothing left to run", f"the study had {had} already; --trials with a higher number may add some"))
    if outcome.interrupted:
        options = ["--studies", str(where.studies), "--study", where.study, *again]
        options += [] if where.track else ["--no-track"]
        rows.append(("Go on", shlex.join(["servetune", "tune", experiment, *options])))
    best = outcome.answer.best
    scenario = outcome.answer.scenario
    if best is not None and best.config is not None and not brief:
        rows.append(("Next, make a page of it", _report_command(where)))
        if scenario.gpus <= scenario.system.max_gpus:
            rows.append(("Next, try a change", _simulate_command(experiment, outcome.answer, best.config)))
    for name, text in rows:
        console.print(Text.assemble((f"{name}: ", "bold"), text), soft_wrap=True)
    if outcome.broken:
        console.print(f"Stopped: three trials in a row failed alike. {outcome.broken}", style="red", markup=False)
    if outcome.problem:
        console.print(outcome.problem, style="yellow", markup=False)


def places(outcome: "Outcome", where: "Where") -> dict[str, str]:
    """Where a search left what."""
    found = {"Study": f"{where.studies / where.study}.journal"}
    if where.track:
        from tuner.tracking.store import default_tracking_uri, open_command, runs_location

        uri = where.tracking_uri or default_tracking_uri()
        found |= {"MLflow runs": runs_location(uri, outcome.answer.scenario), "Open them": open_command(uri)}
    return found


def _report_command(where: "Where") -> str:
    options = [] if str(where.studies) == "studies" else ["--studies", str(where.studies)]
    return shlex.join(["servetune", "report", where.study, *options, "-o", "report.html"])


def _simulate_command(experiment: str, answer: Answer, config: ServingConfig) -> str:
    """Evaluates the best again; `simulate` begins at the untuned configuration of the experiment's first engine."""
    settings = flatten(config)
    baseline = answer.baseline.config if answer.baseline else None
    if baseline is not None and baseline.engine == answer.scenario.space.engines[0]:
        same = flatten(baseline).items()
        settings = {key: value for key, value in settings.items() if (key, value) not in same}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return shlex.join(["servetune", "simulate", experiment, *options])
